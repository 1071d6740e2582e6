import { defineConfig } from 'vite';

export default defineConfig({
  esbuild: { jsx: 'automatic' }, // enough for JSX; @vitejs/plugin-react adds hot reloading of components
  server: {
    // As nginx or Caddy in production: the API is of the page's origin, so that it needs no CORS.
    proxy: { '/api': `http://127.0.0.1:${process.env.API_PORT ?? 8080}` },
  },
  resolve: { preserveSymlinks: true }, // the client is a link to this repository here; a package from npm needs nothing
});
