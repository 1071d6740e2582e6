import { useAuditProgress } from 'auditstream-client/react';

/** An audit's bar, which moves as soon as a change of its row is committed. */
export function Audit({ id, token }) {
  const { progress, state, error } = useAuditProgress(id, { token });
  return (
    <article>
      <h2>Audit {id} <small>{state}</small></h2>
      <progress max="100" value={progress?.progress ?? 0} />
      <p>{error ?? (progress ? `${progress.status}: ${progress.message ?? ''}` : 'One moment...')}</p>
    </article>
  );
}
