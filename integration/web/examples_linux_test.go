package web

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"auditstream/integration/harness"

	"github.com/chromedp/chromedp"
)

// examples are the folders of examples/, and what a reader of each sees who has typed what its README says.
var examples = map[string]func(e example){
	"go-mux":              example.goMux,
	"go-river":            example.goMux,
	"htmx":                example.htmx,
	"node-express-pgboss": example.pgBoss,
	"plain-html":          example.plainHTML,
	"react-vite":          example.reactVite,
	"terminal-script":     example.terminalScript,
}

// inContainers needs Docker, and is run by TestImage.
const inContainers = "testcontainers-go"

// example is one that a reader has started.
type example struct {
	*testing.T
	*harness.Terminal
	shown []string // what else its README shows between its lines
}

// TestExamples types the commands of each example's README as they stand, in a copy of the tree, with a program and ports of the test's
// own. With npm's packages in examples/node_modules it takes half a minute.
func TestExamples(t *testing.T) {
	t.Parallel()
	harness.DependsOn(t, "examples")
	if _, err := os.Stat(harness.Path("examples/node_modules/pg")); err != nil {
		t.Fatal("the examples' packages are missing: run npm ci in examples/, or .ci/setup test, as make test does")
	}
	if lock := harness.Document(t, "examples/package-lock.json"); strings.Contains(lock, "registry") {
		t.Error("examples/package-lock.json names a registry: run npm install there, where .npmrc forbids it")
	}
	pages, err := filepath.Glob(harness.Path("examples/*/README.md"))
	harness.NoError(t, err)
	var folders []string
	for _, page := range pages {
		folders = append(folders, filepath.Base(filepath.Dir(page)))
	}
	harness.WantList(t, "examples/ has", folders, slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(examples)), inContainers))))
	for _, folder := range folders {
		t.Run(folder, func(t *testing.T) {
			t.Parallel()
			harness.Equal(t, strings.Count(harness.Document(t, "examples/README.md"), "("+folder+"/README.md)"), 1, "times that examples/README.md lists", folder)
			if folder == inContainers {
				return
			}
			if examples[folder] == nil {
				t.Fatal("nobody looks at what it does: add it to the list above")
			}
			e := example{T: t, Terminal: harness.OpenTerminal(t)}
			e.Type(e.copyTree() + e.ports())
			if strings.HasPrefix(folder, "go-") {
				e.Type(e.copyModule())
			}
			typed := ""
			for _, block := range harness.DocBlocks(t, "examples/"+folder+"/README.md") {
				if strings.HasPrefix(block.Text, "cd examples/"+folder+"\n") {
					typed += block.Text
				} else {
					e.shown = append(e.shown, strings.TrimSpace(block.Text))
				}
			}
			if typed == "" {
				t.Fatalf("examples/%s/README.md has no commands that begin with cd examples/%s", folder, folder)
			}
			e.Begin(typed)
			examples[folder](e)
		})
	}
}

// copyTree goes into a copy of what the examples are and use: the original may be in use, and gets a database.
func (e example) copyTree() (typed string) {
	e.Helper()
	root := harness.Path(".")
	dir := filepath.Join(e.TempDir(), "auditstream")
	client := filepath.Join(dir, "internal/server/web")
	bin := filepath.Join(dir, "bin")
	for _, folder := range []string{client, bin} {
		harness.NoError(e, os.MkdirAll(folder, 0o755))
	}
	for link, target := range map[string]string{
		filepath.Join(client, "client"):   filepath.Join(root, "internal/server/web/client"),
		filepath.Join(bin, "auditstream"): harness.PlainBinary(e),
	} {
		harness.NoError(e, os.Symlink(target, link))
	}
	return `(cd '` + root + `' && tar c --exclude=.auditstream --exclude=./examples/node_modules ./examples) | tar x -C '` + dir + `'
ln -s '` + root + `/examples/node_modules' '` + dir + `/examples/node_modules'
cd '` + dir + `' && export PATH=$PWD/bin:$PATH
`
}

// copyModule adds what examples in Go are built of.
func (e example) copyModule() (typed string) {
	e.Helper()
	root := harness.Path(".")
	return "rm internal/server/web/client\n" + // a link, which go:embed does not follow
		"(cd '" + root + "' && tar c --exclude=node_modules --exclude='*_test.go' ./go.mod ./go.sum ./*.go ./internal) | tar x\n"
}

func (e example) ports() (typed string) {
	e.Helper()
	port := func() string {
		_, port, err := net.SplitHostPort(harness.QuietAddr(e))
		harness.NoError(e, err)
		return port
	}
	return "export PORT=" + port() + " API_PORT=" + port() + "\n"
}

// open opens the page whose link the example prints.
func (e example) open() *page {
	e.Helper()
	out := e.Says("\nOpen http://")
	link := regexp.MustCompile(`\nOpen (\S+)\n`).FindStringSubmatch(out)
	if link == nil {
		e.Fatalf("no link in:\n%s", out)
	}
	return openPage(e, link[1])
}

func (e example) plainHTML() {
	p := e.open()
	p.wait(e, "a bar that moves", "[...document.querySelectorAll('progress')].some((bar) => bar.value > 10 && bar.value < 100)")
	p.wait(e, "live", "document.querySelector('#connection').textContent.trim() === 'live'")
	p.wait(e, "the end", "/^completed: Done$/m.test(document.querySelector('#audits').innerText)")
	p.wait(e, "the next one", "document.querySelectorAll('li').length > 1")
	e.quiet(p)
}

// goMux is also for go-river, whose page is the same.
func (e example) goMux() {
	p := e.open()
	p.do(e, chromedp.Click(chromedp.CSS("button")))
	p.wait(e, "a bar that moves", "[...document.querySelectorAll('progress')].some((bar) => bar.value > 0 && bar.value < 100)")
	p.wait(e, "the end", "document.querySelector('ul').innerText.includes('completed: Done')")
	e.quiet(p)
}

func (e example) htmx() {
	p := e.open()
	e.moves(p, "button", "document.querySelectorAll('#audits > .audit').length") // which do not listen any more
	p.wait(e, "the end", "document.querySelector('#audits').innerText.includes('completed: Done') && !document.querySelector('[sse-connect]')")
	e.quiet(p, "error: [object Event]")
}

func (e example) pgBoss() {
	p := e.open()
	e.moves(p, "#new", "document.querySelectorAll('.completed').length")
	p.do(e, chromedp.Click(chromedp.CSS("#bad")))
	p.wait(e, "the failure", "document.querySelector('.failed')?.innerText.includes('failed: Page 4 cannot be printed')")
	e.quiet(p)
}

// moves presses a button until a bar was seen on its way; a machine that is busy may show the end alone.
func (e example) moves(p *page, button, ended string) {
	e.Helper()
	p.eval(e, `window.moved = false; setInterval(() => {
		moved ||= [...document.querySelectorAll('progress')].some((bar) => bar.value > 0 && bar.value < 100);
	}, 10)`)
	for n := 1; n == 1 || !p.is(e, "moved"); n++ {
		if n > 10 {
			e.Fatal("no bar was seen on its way")
		}
		p.do(e, chromedp.Click(chromedp.CSS(button)))
		p.wait(e, "the end", fmt.Sprintf("%s === %d", ended, n))
	}
}

func (e example) reactVite() {
	p := e.open()
	some := func(what, condition string) {
		p.wait(e, what, "[...document.querySelectorAll('article')].some((one) => "+condition+")")
	}
	some("a bar that moves", "one.querySelector('progress').value > 0 && one.innerText.includes('running: Page')")
	some("the end", "one.innerText.includes('completed: Done') && one.querySelector('small').innerText === 'done'")
	e.quiet(p)
}

// quiet checks that the page has no errors, and keeps a picture of it (go test -artifacts -outputdir DIR).
// It may have those errors that the example's README tells of.
func (e example) quiet(p *page, told ...string) {
	e.Helper()
	problems := slices.DeleteFunc(p.consoleProblems(), func(problem string) bool {
		return slices.ContainsFunc(told, func(text string) bool { return strings.HasPrefix(problem, text) })
	})
	if len(problems) > 0 {
		e.Errorf("the console shows:\n%s", strings.Join(problems, "\n"))
	}
	picture, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err == nil {
		err = os.WriteFile(filepath.Join(e.ArtifactDir(), "page.png"), picture, 0o644)
	}
	harness.NoError(e, err)
}

// eventLine is what watch prints for an event.
var eventLine = regexp.MustCompile(`\{"audit_id":\d+,"status":"\w+","progress":\d+,"message":"[^"]+"\}`)

func (e example) terminalScript() {
	out := e.End()
	harness.WantIn(e, out, "is half done", `"status":"completed","progress":100`, "is complete: publishing")
	if shown := strings.Join(e.shown, "\n"); eventLine.FindString(shown) != shown || !eventLine.MatchString(out) {
		e.Errorf("the README shows\n%s\nas what is printed:\n%s", shown, out)
	}
}
