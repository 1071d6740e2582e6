package main

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
)

// Made up, as everything here.
const (
	someToken  = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJkZXYifQ.c2lnbmF0dXJl"
	somePassed = "hunter2"
)

// The pictures in docs/ are as they are drawn, small, and without a secret.
func TestPicturesOfTheDocuments(t *testing.T) {
	t.Parallel()
	const docs = "../../docs"
	for name, most := range map[string]int{"run.svg": 60_000, "update.svg": 60_000, "page.png": 80_000, "page-dark.png": 80_000} {
		picture, err := os.ReadFile(filepath.Join(docs, name))
		if err != nil {
			t.Fatalf("%v (make pictures draws it)", err)
		}
		if len(picture) > most {
			t.Errorf("docs/%s has %d bytes, want %d at most", name, len(picture), most)
		}
		if filepath.Ext(name) == ".png" {
			continue
		}
		harness.WellFormed(t, string(picture))
		harness.Equal(t, shortened(string(picture)), string(picture), "without a token or password", name)
		if name == "update.svg" && !bytes.Equal(picture, wayOfAnUpdate()) {
			t.Error("docs/update.svg is not what update.go draws: run make pictures")
		}
	}
}

func TestSecretsAreShortened(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`curl -H "Authorization: Bearer ` + someToken + `" http://host/`: `curl -H "Authorization: Bearer eyJhbGciOi..." http://host/`,
		"psql postgres://dev:" + somePassed + "@127.0.0.1:5432/app":      "psql postgres://dev:...@127.0.0.1:5432/app",
		"http://127.0.0.1:8080/ is the page":                             "http://127.0.0.1:8080/ is the page",
	} {
		harness.Equal(t, shortened(text), want)
	}
}

// Each line appears when it was said, but for long waits; a long one is broken where a terminal breaks it, after its secrets were shortened.
func TestScreen(t *testing.T) {
	t.Parallel()
	start := time.Now()
	after := func(d time.Duration) time.Time { return start.Add(d) }
	broken := strings.Repeat("x", columns) + "yy"
	picture := screen([]*terminal{
		{command: "make run", opened: start, lines: []line{{after(20 * time.Second), "  a < b"}, {after(20100 * time.Millisecond), broken}}},
		{command: "curl " + someToken, opened: after(20200 * time.Millisecond), lines: []line{
			{after(20250 * time.Millisecond), ""}, {after(20300 * time.Millisecond), "data"},
		}},
	})
	harness.WellFormed(t, string(picture))
	harness.WantIn(t, string(picture),
		`<g style="animation-delay:700ms"><text x="20" y="34" class="typed">$ make run</text></g>`+"\n",
		`<g style="animation-delay:1400ms"><text x="20" y="52">  a &lt; b</text></g>`+"\n",
		`<g style="animation-delay:1500ms"><text x="20" y="70">`+strings.Repeat("x", columns)+`</text></g>`+"\n",
		`<g style="animation-delay:1500ms"><text x="20" y="88">yy</text></g>`+"\n",
		`<g style="animation-delay:3000ms"><text x="20" y="136" class="typed">$ curl eyJhbGciOi...</text></g>`+"\n",
		`<g style="animation-delay:3100ms"><text x="20" y="172">data</text></g>`+"\n",
	)
}

// A real shell in a real terminal, which ends at Ctrl-C.
func TestTerminal(t *testing.T) {
	t.Parallel()
	session, err := open(t.TempDir(), `sh -c 'echo "page: http://host/"; test -t 1 && echo "of a terminal"; exec cat'`)
	harness.NoError(t, err)
	match, err := session.until(t.Context(), `^page: (.*)$`)
	if err != nil || match[1] != "http://host/" {
		t.Errorf("%q, error %v", match, err)
	}
	if _, err := session.until(t.Context(), `^of a terminal$`); err != nil {
		t.Error(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := session.until(over, "^never$"); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "of a terminal") {
		t.Errorf("error %v, want one with what was said", err)
	}
	session.close()
	if session.cmd.ProcessState == nil {
		t.Error("cat has not ended")
	}
}

func TestTerminalThatEndsEarlyOrMovesTheCursor(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		`echo postgres://dev:` + somePassed + `@host/`: "it has ended; it said:\npostgres://dev:...@host/",
		`printf '\033[1mbold\033[0m\n'`:                "has colours",
	} {
		session, err := open(t.TempDir(), command)
		harness.NoError(t, err)
		if _, err := session.until(t.Context(), "^never$"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
		session.close()
	}
}

func apart(a, b uint8) uint8 { return max(a, b) - min(a, b) }

// A picture with more colours than a palette has is smaller, as large, and looks nearly the same.
func TestSmall(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	img := image.NewNRGBA(image.Rect(0, 0, 200, 100))
	for y := range 100 {
		for x := range 200 {
			c := color.NRGBA{250, 250, 250, 255} // the ground, and text on it
			if x%10 == 0 {
				shade := uint8(random.IntN(256))
				c = color.NRGBA{shade, shade, shade / 2, 255}
			}
			if x%100 == 5 { // of which there is little
				c = color.NRGBA{20, uint8(120 + random.IntN(4)), 60, 255}
			}
			img.Set(x, y, c)
		}
	}
	var before bytes.Buffer
	harness.NoError(t, png.Encode(&before, img))
	after, err := small(before.Bytes())
	harness.NoError(t, err)
	got, err := png.Decode(bytes.NewReader(after))
	if err != nil || got.Bounds() != img.Bounds() {
		t.Fatalf("error %v, or another size", err)
	}
	if len(after) >= before.Len() {
		t.Errorf("%d bytes, had %d", len(after), before.Len())
	}
	for y := range 100 {
		for x := range 200 {
			was, is := img.NRGBAAt(x, y), color.NRGBAModel.Convert(got.At(x, y)).(color.NRGBA)
			if far := max(apart(was.R, is.R), apart(was.G, is.G), apart(was.B, is.B)); far > 32 {
				t.Fatalf("the pixel at %d, %d was %v and is %v", x, y, was, is)
			}
		}
	}
	if _, err := small([]byte("no picture")); err == nil {
		t.Error("what is no picture was taken")
	}
}
