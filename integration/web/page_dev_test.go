package web

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// moving is a running audit of a worker, not the one that is changed by hand.
const moving = `.row[data-status="running"]:has(.tag[hidden])`

// TestPageShowsDevAudits is a newcomer's first minute: start dev, open the page, run the psql line that it shows.
func TestPageShowsDevAudits(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	p := openPage(t, url)

	p.wait(t, "five audits or more, and the connection", `document.querySelectorAll('.row[data-status]:not([data-status=""])').length >= 5
		&& document.querySelector('#link').dataset.state === 'live'`)
	p.eval(t, `window.before = new Map([...document.querySelectorAll('#running .row')].map(row => [row.dataset.id, row.querySelector('.bar').getAttribute('aria-valuenow')]))`)
	p.wait(t, "two bars to move", `[...document.querySelectorAll('.row')].filter(row => (bar => before.has(row.dataset.id)
		&& bar.getAttribute('aria-valuenow') !== before.get(row.dataset.id)
		&& bar.firstElementChild.style.width === bar.getAttribute('aria-valuenow') + '%')(row.querySelector('.bar'))).length >= 2`)
	// All of them by one connection.
	if streams := p.json(t, `performance.getEntriesByType('resource').filter(r => r.name.includes('/sse/')).length`); streams > "1" {
		t.Errorf("%s streams were opened, want one that is open still", streams)
	}

	// The line is run in a shell as it stands, as somebody would who has copied it.
	p.eval(t, `location.hash = '#/' + document.querySelector('.tag:not([hidden])').closest('.row').dataset.id`)
	line := p.text(t, "#sql")
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	p.wait(t, "the row changed by hand", `(row => row.querySelector('.percent').textContent === '50'
		&& row.querySelector('.stage').textContent.startsWith('by hand at '))(document.querySelector('.tag:not([hidden])').closest('.row'))`)
	p.wait(t, "its event in the detail", `document.querySelector('#log li code')?.textContent.includes('progress 50 message by hand at ')`)
	p.wait(t, "the time since its commit", `/^\+[\d.]+ m?s$/.test(document.querySelector('#log li .since').textContent)`)
	p.wait(t, "a bar for that", `document.querySelectorAll('#latency rect:not(.none)').length >= 1`)
	p.wait(t, "that in words", `/^last [\d.]+ m?s, median of/.test(document.querySelector('#latency-text').textContent)`)

	if curl := p.text(t, "#curl"); !strings.HasPrefix(curl, "curl -N "+strings.TrimSuffix(url, "/")+"/api/v1/sse/audits/") {
		t.Errorf("curl line: %s", curl)
	}
	p.eval(t, `document.querySelector('[data-copy=curl]').click()`)
	p.wait(t, "the copy button's answer", `document.querySelector('[data-copy=curl]').textContent !== 'Copy'`)

	p.wait(t, "a completed audit and its successor", `document.querySelector('#ended .row[data-status=completed] .outcome')?.textContent.startsWith('score ')
		&& document.querySelectorAll('#running .row').length >= 4`)
	p.eval(t, `document.querySelector('`+moving+` .pick').click()`)
	p.wait(t, "a moving audit's detail", `document.querySelectorAll('#latency rect:not(.none)').length >= 5`)
	p.screenshots(t, "running")

	p.wait(t, "a failed audit", `document.querySelector('.row[data-status=failed] .stage')?.textContent.startsWith('Competitor analysis failed')`)
	p.eval(t, `document.querySelector('.row[data-status=failed] .pick').click()`)
	p.wait(t, "why it failed", `document.querySelector('#detail-error').checkVisibility()
		&& document.querySelector('#detail-error').textContent.startsWith('Competitor analysis failed')`)
	p.screenshots(t, "failed")

	p.eval(t, `location.hash = '#/'`)
	p.screenshots(t, "list")
	p.clean(t)
}

// TestPageByKeyboardAlone goes through the page as somebody without a mouse does, in a wide window and on a narrow one.
func TestPageByKeyboardAlone(t *testing.T) {
	t.Parallel()
	p := openPage(t, startDev(t))
	p.wait(t, "audits", `document.querySelectorAll('`+moving+`').length >= 2`)

	press := func(key string) { t.Helper(); p.do(t, chromedp.KeyEvent(key)) }
	// Tab leads from the top to the skip link, past the buttons, to the first row.
	focused := `document.activeElement`
	press(kb.Tab)
	p.wait(t, "the skip link", focused+`.id === 'skip' && `+focused+`.getBoundingClientRect().top >= 0`)
	press(kb.Tab)
	p.wait(t, "the first button", focused+`.dataset.action === 'start'`)
	// Noted while the key is handled: audits end meanwhile, and their rows leave the list.
	p.eval(t, `window.picks = () => [...document.querySelectorAll('.pick')]; window.to = window.from = -1
		addEventListener('keydown', () => window.from = picks().indexOf(document.activeElement), true)
		addEventListener('focusin', event => window.to = picks().indexOf(event.target))`)
	for range 4 {
		press(kb.Tab)
	}
	p.wait(t, "the first row", `to === 0`)
	p.wait(t, "a ring around it", `getComputedStyle(document.activeElement, '::after').outlineStyle === 'solid'`)
	// until presses key until a row has the focus of which that is true; a row that leaves the list takes the focus with it.
	until := func(key, is string) {
		t.Helper()
		for range 30 {
			p.eval(t, `picks().includes(document.activeElement) || picks()[1].focus()`)
			if press(key); p.json(t, is) == "true" {
				return
			}
		}
		t.Fatalf("%q never leads to %s", key, is)
	}
	until(kb.ArrowDown, `to === from + 1`)
	until(kb.ArrowUp, `to === from - 1`)
	until(kb.ArrowUp, `to === 0`)
	// The one that is changed by hand: the others end meanwhile, and leave the list.
	p.eval(t, `window.row = document.activeElement`)
	press(kb.Enter)
	p.wait(t, "its detail", `row.getAttribute('aria-current') === 'true' && document.querySelector('#detail-title').textContent === row.textContent`)
	p.eval(t, `document.querySelector('#log').focus()`)
	press(kb.Escape)
	p.wait(t, "the way back to the row", focused+` === row`)

	// Narrow: one at a time.
	p.do(t, chromedp.EmulateViewport(390, 844))
	p.eval(t, `location.hash = '#/'`)
	p.wait(t, "the list alone", `document.querySelector('#audits').checkVisibility() && !document.querySelector('#detail').checkVisibility()`)
	p.eval(t, `row.focus()`)
	press(kb.Enter)
	p.wait(t, "the detail alone, with the focus", `!document.querySelector('#audits').checkVisibility() && document.querySelector('#detail').checkVisibility()
		&& document.activeElement.id === 'detail'`)
	press(kb.Escape)
	p.wait(t, "the list again, with the focus on the row", `document.querySelector('#audits').checkVisibility() && document.activeElement === row`)
	p.clean(t)
}

// TestPageButtonsBreakAndHeal presses the buttons of dev: whatever they break, the page is current again by itself.
func TestPageButtonsBreakAndHeal(t *testing.T) {
	t.Parallel()
	p := openPage(t, startDev(t))
	p.wait(t, "the listener's process", `/^process \d+$/.test(document.querySelector('#node-database').textContent)`)
	p.wait(t, "audits", `document.querySelectorAll('`+moving+`').length >= 1`)
	press := func(action string) {
		t.Helper()
		p.eval(t, `document.querySelector('[data-action=`+action+`]').click()`)
	}
	// Noted as they come: the next one may follow while the test is not looking.
	p.eval(t, `window.notes = []; new MutationObserver(() => notes.push(document.querySelector('#happening').textContent
		+ ' ' + document.querySelector('#node-database').textContent + ' ' + document.querySelector('#wire-database').dataset.state))
		.observe(document.querySelector('#lab'), {subtree: true, childList: true, characterData: true, attributes: true})`)
	happens := func(text string) {
		t.Helper()
		p.wait(t, text, fmt.Sprintf(`notes.some(note => /%s/.test(note))`, text))
	}
	// fresh waits for news of an audit: the listener and the database are back when there are some.
	fresh := func(what string) {
		t.Helper()
		p.eval(t, `window.before = new Map([...document.querySelectorAll('`+moving+`')].map(row => [row, row.innerText]))`)
		p.wait(t, what, `[...document.querySelectorAll('`+moving+`')].some(row => before.get(row)?.replace(/[\d:]+$/, '') !== row.innerText.replace(/[\d:]+$/, '') && row.innerText)`)
	}

	press("start")
	happens(`Audit \d+ has started`)
	p.wait(t, "the new audit, on display and moving", `(id => document.querySelector('#detail-title').textContent === 'Audit ' + id
		&& document.querySelector('.row[data-id="' + id + '"] .site')?.textContent === 'yours.example'
		&& document.querySelector('.row[data-id="' + id + '"]').dataset.status === 'running')(location.hash.slice(2))`)
	p.wait(t, "the button's aim", `document.querySelector('#fail-which').textContent === 'audit ' + location.hash.slice(2)`)
	press("fail")
	happens(`Audit \d+ was made to fail`)
	p.wait(t, "its failure", `document.querySelector('#detail').dataset.status === 'failed'
		&& document.querySelector('#detail-error').textContent === 'Made to fail by a button of the page.'`)
	p.wait(t, "it below the others", `document.querySelector('#ended .row[data-id="' + location.hash.slice(2) + '"] .outcome')?.textContent === 'failed'`)

	press("kill-listener")
	happens(`The listener is back as process \d+`)
	fresh("changes after the listener's connection was cut")

	press("pause")
	happens(`PostgreSQL stands still`)
	happens(`paused, \d+ s left offline`)
	p.screenshots(t, "paused")
	happens(`PostgreSQL goes on`)
	p.wait(t, "the end of the pause", `document.querySelector('#wire-database').dataset.state === 'live'`)
	fresh("changes after PostgreSQL stood still")
	p.wait(t, "the connection", `document.querySelector('#link').dataset.state === 'live'`)
}

// TestPageSurvivesRestart stops dev under an open page and starts it again on the same port: the page goes on by itself.
func TestPageSurvivesRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := runDev(t, dir, "127.0.0.1:0")
	p := openPage(t, first.url)
	live := `document.querySelector('#link').dataset.state === 'live' && document.querySelectorAll('` + moving + `').length >= 1`
	p.wait(t, "live audits", live)
	p.eval(t, `window.old = [...document.querySelectorAll('`+moving+`')]`)
	first.stop(t)
	p.wait(t, "the page to say so", `document.querySelector('#link').dataset.state !== 'live' && document.querySelector('#notice').checkVisibility()`)
	p.screenshots(t, "offline")
	second := runDev(t, dir, strings.Trim(strings.TrimPrefix(first.url, "http://"), "/"))
	p.wait(t, "live audits again", live+` && !document.querySelector('#notice').checkVisibility()`)
	// Their worker is gone, and the stream of what runs does not mention them any more.
	p.wait(t, "what has become of the old ones", `old.every(row => !row.isConnected || row.dataset.status === 'failed' || row.dataset.status === 'gone')`)
	second.stop(t)
}
