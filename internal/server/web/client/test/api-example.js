import { AuthEventSource as EventSource } from 'auditstream-client';
// From here on as the API page has it.
const eventSource = new EventSource(
  'https://api.latentgeo.com/api/v1/sse/audits/123/progress',
  {
    headers: {
      'Authorization': 'Bearer YOUR_TOKEN'
    }
  }
);

eventSource.onmessage = (event) => {
  const data = JSON.parse(event.data);
  console.log('Progress:', data.progress + '%');
  console.log('Status:', data.status);
  
  if (data.status === 'completed' || data.status === 'failed') {
    eventSource.close();
  }
};

eventSource.onerror = (error) => {
  console.error('SSE error:', error);
  eventSource.close();
};
