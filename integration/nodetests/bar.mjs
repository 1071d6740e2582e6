// A component as docs/testing.md tests it.
import { watchAudit } from 'auditstream-client';

export function progressBar(id) {
  const bar = { value: 0, text: '' };
  void watchAudit(id, {
    onProgress: (audit) => { bar.value = audit.progress; },
    onState: (state) => { bar.text = state; },
  });
  return bar;
}
