create table documents (id bigserial primary key, doc jsonb not null);

-- life: failed
insert into documents (doc) values ('{"owner": {"id": "alice"}}') returning id;
--> {"id":KEY,"status":"pending","progress":0}
update documents set doc = doc || '{"state": "RUNNING", "percent": 12.5, "note": "a \"quoted\" text", "pages": [1, {"a": "\n"}]}' where id = KEY;
--> {"id":KEY,"status":"running","progress":12,"message":"a \"quoted\" text","doc_pages":[1, {"a": "\n"}]}
update documents set doc = doc || '{"percent": "a lot", "note": null, "pages": null}' where id = KEY;
--> {"id":KEY,"status":"running","progress":0}
update documents set doc = doc || '{"state": "failed", "percent": 99, "problem": {"code": 7}}' where id = KEY;
--> {"id":KEY,"status":"failed","progress":99,"error":"{\"code\": 7}"}
