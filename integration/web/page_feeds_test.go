package web

import (
	"fmt"
	"strings"
	"testing"

	"auditstream/integration/harness"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestPageShowsFeeds chooses another feed of dev with the keyboard alone, sees its rows run and end by words of their own, and asks for one that has
// ended and for what is not there.
func TestPageShowsFeeds(t *testing.T) {
	t.Parallel()
	p := openPage(t, startDev(t))
	enter := func(text string) {
		t.Helper()
		p.eval(t, `document.querySelector('#which').focus(); document.querySelector('#which').select()`)
		p.do(t, chromedp.KeyEvent(text), chromedp.KeyEvent(kb.Enter))
	}
	// arrives waits across the change from one page to another, in which there is none to ask.
	arrives := func(what, expression string) {
		t.Helper()
		harness.Eventually(t, func() error {
			got, err := chromedp.Run(p.ctx, chromedp.Evaluate[string]("String("+expression+")"))
			if err != nil || got != "true" {
				return fmt.Errorf("waiting for %s: %s, %v", what, got, err)
			}
			return nil
		})
	}
	p.wait(t, "the feeds to choose from", `[...document.querySelectorAll('#feeds option')].map(option => option.value).join() === 'audits,exports'`)
	enter("exports")
	arrives("exports", `location.search === '?feed=exports' && document.querySelector('#audits-title').textContent === 'exports'`)
	p.wait(t, "two that run, and no audit", `document.querySelectorAll('#running .row').length >= 2 && !document.querySelector('.pick[href="#/1"]')`)
	p.wait(t, "the connection", `document.querySelector('#link').dataset.state === 'live'`)
	p.wait(t, "the fields of one", `[...document.querySelectorAll('.facts .field:not([hidden]) dt')].map(dt => dt.textContent).join() === 'file,processed,total'
		&& !document.querySelector('#fact-score').checkVisibility()`)
	p.wait(t, "a bar to move", `document.querySelector('#running .row .percent').textContent > '0'`)
	p.wait(t, "who", `document.querySelector('#user').textContent === 'dev’s exports'`)
	p.screenshots(t, "feed")
	p.wait(t, "one that was cancelled among the ended", `document.querySelector('#ended .row[data-status=cancelled] .outcome')?.textContent === 'cancelled'`)
	p.wait(t, "one that was completed", `document.querySelector('#ended .row[data-status=completed] .outcome')?.textContent === 'completed'`)
	if problems := p.text(t, "#lab"); p.json(t, `document.querySelector('#lab').checkVisibility()`) != "false" {
		t.Errorf("the experiments, which are with audits, are shown: %s", problems)
	}

	key := p.json(t, `document.querySelector('#ended .row[data-status=cancelled]').dataset.id`)
	p.eval(t, `location.assign('/')`)
	arrives("audits again", `document.querySelector('#audits-title').textContent === 'Audits' && document.querySelectorAll('#running .row').length >= 2`)
	enter("exports/" + strings.Trim(key, `"`))
	arrives("the row that had ended", `document.querySelector('#detail-title').textContent === 'exports/' + `+key+` && document.querySelector('#detail-status').textContent === 'cancelled'`)

	enter("exports/6f1c2b9e-41d5-4f0c-9a57-2f6e1c0b7d38")
	p.wait(t, "that there is no such row", `document.querySelector('#which-error').textContent === 'exports/6f1c2b9e-41d5-4f0c-9a57-2f6e1c0b7d38: No such row.'`)
	enter("exports/a/b, 50% \"x\"")
	p.wait(t, "that it is no key", `document.querySelector('#which-error').textContent === 'exports/a/b, 50% "x": Invalid id: give a UUID.'`)
	enter("Exports")
	p.wait(t, "that it is no name", `document.querySelector('#which-error').textContent.startsWith('A feed has a name of small letters')`)
	p.screenshots(t, "feed-error")
	enter("nothing")
	arrives("that there is no such feed", `document.querySelector('#which-error').textContent === 'There is no feed nothing on this server.' && location.search === '?feed=nothing'`)
}
