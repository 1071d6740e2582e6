package web

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"auditstream/integration/harness"
)

// codeOf is the block of a document in the language.
func codeOf(t testing.TB, page, language string) string {
	t.Helper()
	_, text, found := strings.Cut(harness.Document(t, page), "\n```"+language+"\n")
	text, _, ended := strings.Cut(text, "```\n")
	if !found || !ended {
		t.Fatalf("%s has no code in %s", page, language)
	}
	return text
}

// The code of README and of the pages for the browser and for React runs as it stands: it shows a row, its changes and its end.
func TestClientDocuments(t *testing.T) {
	t.Parallel()
	for page, language := range map[string]string{"README.md": "js", "docs/browser.md": "js", "docs/react.md": "jsx"} {
		t.Run(page, func(t *testing.T) {
			t.Parallel()
			code := codeOf(t, page, language)
			if language == "jsx" {
				code = compiled(t, code) + `
import { createElement } from 'react';
import { createRoot } from 'react-dom/client';
createRoot(document.querySelector('#root')).render(createElement(Audit, { id: 42 }));`
			}
			db := harness.NewDatabase(t)
			db.SQL(t, `insert into audits (id, url, user_id, status, progress) overriding system value values (42, 'https://example.com', 'alice', 'running', 25)`)
			i := harness.Serve(t, db.Serve)
			s := newSite(t)
			s.setTarget(t, i.URL)
			p := openPage(t, s.URL)
			p.eval(t, `window.session = { freshToken: () => '`+harness.AliceToken(t)+`' };
				if (`+jsString(language)+` === 'js') document.body.insertAdjacentHTML('beforeend', '<progress id="bar" max="100" value="0"></progress><b id="badge"></b>')`)
			p.module(t, code)
			value := "document.querySelector('progress')?.value"
			p.wait(t, "the first state", value+" === 25")
			db.SQL(t, "update audits set progress = 55 where id = 42")
			p.wait(t, "the change", value+" === 55")
			db.SQL(t, "update audits set status = 'completed', progress = 100 where id = 42")
			p.wait(t, "the end", value+" === 100 && (document.querySelector('#badge')?.textContent ?? document.querySelector('progress').title) === 'done'")
		})
	}
}

// compiled is JSX as a browser understands it.
func compiled(t testing.TB, jsx string) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "page.jsx")
	harness.NoError(t, os.WriteFile(source, []byte("import * as React from 'react';\n"+jsx), 0o600))
	tsc := exec.CommandContext(t.Context(), "node", "node_modules/typescript/bin/tsc", source, "--allowJs", "--checkJs", "false", "--noResolve", "--jsx", "react",
		"--target", "es2022", "--module", "es2022", "--typeRoots", dir, "--outDir", filepath.Join(dir, "out"))
	tsc.Dir = harness.Path(harness.ClientTestDir)
	if out, err := tsc.CombinedOutput(); err != nil && !strings.Contains(string(out), "TS2307") {
		t.Fatalf("tsc: %v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "out", "page.js"))
	harness.NoError(t, err)
	return string(text)
}
