package web

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"auditstream/integration/harness"

	"github.com/chromedp/chromedp"
)

// page is a tab of a browser of its own.
type page struct {
	ctx context.Context

	mu       sync.Mutex
	problems []string // errors and warnings of its console, uncaught exceptions, violations of its policy
}

// openPage opens url in Chromium, with further options of the browser's. It ends with the test.
func openPage(t testing.TB, url string, more ...chromedp.ExecAllocatorOption) *page {
	t.Helper()
	takeBrowser(t)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium(t)),
		chromedp.NoSandbox, // tests run as root too
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)
	allocator, stop := chromedp.NewExecAllocator(context.Background(), append(options, more...)...)
	t.Cleanup(stop)
	return openTab(t, allocator, url)
}

// browsers bounds how many run at a time: each draws its page with all the processor that it gets.
var browsers = struct {
	slots chan struct{}
	taken sync.Map // by top-level test, which may open several
}{slots: make(chan struct{}, 2)}

// takeBrowser waits until the test may have a browser, which it has until it ends.
func takeBrowser(t testing.TB) {
	t.Helper()
	if _, has := browsers.taken.LoadOrStore(t.Name(), true); has {
		return
	}
	browsers.slots <- struct{}{}
	t.Cleanup(func() {
		browsers.taken.Delete(t.Name())
		<-browsers.slots
	})
}

// tab opens url in a new tab of the page's window, in front of it.
func (p *page) tab(t testing.TB, url string) *page {
	t.Helper()
	return openTab(t, p.ctx, url, chromedp.WithNewWindow(false))
}

func openTab(t testing.TB, parent context.Context, url string, options ...chromedp.ContextOption) *page {
	t.Helper()
	ctx, cancel := chromedp.NewContext(parent, options...)
	p := &page{ctx: ctx}
	console := chromedp.Console(ctx) // starts the browser
	var reading sync.WaitGroup
	reading.Go(func() {
		for message, err := range console {
			if err != nil {
				return
			}
			p.note(message)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the console shows: %q", p.consoleProblems())
		}
		cancel()
		reading.Wait()
	})
	p.do(t, chromedp.EmulateViewport(1280, 800), chromedp.Navigate(url))
	return p
}

func chromium(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("a browser is needed: install Chromium (Debian: apt-get install chromium) or Google Chrome, and have it on the PATH")
	return ""
}

func (p *page) note(m chromedp.ConsoleMessage) {
	switch m.Type {
	case chromedp.ConsoleError, chromedp.ConsoleWarning, chromedp.ConsoleException:
		p.mu.Lock()
		defer p.mu.Unlock()
		p.problems = append(p.problems, fmt.Sprintf("%s %s (%s)", m, m.Source, m.URL))
	}
}

func (p *page) consoleProblems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.problems...)
}

// quiet checks that the console is empty.
func (p *page) quiet(t testing.TB) {
	t.Helper()
	if problems := p.consoleProblems(); len(problems) > 0 {
		t.Errorf("the console shows:\n%s", strings.Join(problems, "\n"))
	}
}

// clean checks that the console is empty, and that what breaks the policy would be in it.
func (p *page) clean(t testing.TB) {
	t.Helper()
	problems := slices.DeleteFunc(p.consoleProblems(), func(problem string) bool {
		return strings.Contains(problem, "404") && strings.HasSuffix(problem, "/status)") // dev has removed an audit that had ended
	})
	if len(problems) > 0 {
		t.Errorf("the console shows:\n%s", strings.Join(problems, "\n"))
	}
	p.eval(t, `document.body.setAttribute('style', 'color: red')`)
	harness.WaitIn(t, func() string { return strings.Join(p.consoleProblems(), "\n") }, "Content Security Policy")
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = nil
}

func (p *page) do(t testing.TB, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 2*harness.Patience)
	defer cancel()
	harness.NoError(t, chromedp.Do(ctx, steps...))
}

func (p *page) eval(t testing.TB, script string) {
	t.Helper()
	p.do(t, chromedp.Evaluate[chromedp.Void](script))
}

// wait waits until a JavaScript expression is true.
func (p *page) wait(t testing.TB, what, expression string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 3*harness.Patience)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Poll[chromedp.Void](expression,
		chromedp.WithPollingTimeout(2*harness.Patience), chromedp.WithPollingInterval(50*time.Millisecond))) // a hidden tab has no animation frames
	if err != nil {
		text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
		t.Fatalf("waiting for %s: %v; the page shows:\n%s", what, err, text)
	}
}

func (p *page) text(t testing.TB, selector string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, harness.Patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.TextContent(chromedp.CSS(selector)))
	harness.NoError(t, err)
	return text
}
