import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';

import { Audit } from './Audit.jsx';

// Your application tells its pages both: what to show, and a token of whoever is logged in.
const id = new URLSearchParams(location.search).get('audit');
const token = () => location.hash.slice(1);

createRoot(document.querySelector('#root')).render(
  <StrictMode>
    <h1>Your audit</h1>
    <Audit id={id} token={token} />
  </StrictMode>,
);
