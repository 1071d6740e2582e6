import { StrictMode, useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { watchAudits } from 'auditstream-client';

import { Audit } from './Audit.jsx';

// Your application's pages have the token of whoever is logged in from where they get their data.
const token = () => location.hash.slice(1);

/** The ids of all of mine that run, also of those that start later. */
function useMyAudits() {
  const [ids, setIds] = useState([]);
  useEffect(() => {
    const stop = new AbortController();
    void watchAudits(null, {
      token,
      signal: stop.signal,
      onProgress: ({ id }) => setIds((before) => before.includes(id) ? before : [id, ...before]),
    });
    return () => stop.abort();
  }, []);
  return ids;
}

function App() {
  return (
    <>
      <h1>Your audits</h1>
      {useMyAudits().map((id) => <Audit key={id} id={id} token={token} />)}
    </>
  );
}

createRoot(document.querySelector('#root')).render(<StrictMode><App /></StrictMode>);
