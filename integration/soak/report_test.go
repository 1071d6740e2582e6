package soak

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"auditstream/integration/series"
)

// report logs the table, and keeps it with the samples and the drawing where SOAK_REPORT says.
func (s *soak) report(t *testing.T, record *series.Record) {
	t.Helper()
	dir := os.Getenv("SOAK_REPORT")
	if dir == "" {
		dir = t.TempDir()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := s.summary(record)
	t.Log("\n" + text)
	if err := os.WriteFile(filepath.Join(dir, "soak.md"), []byte(text), 0o644); err != nil {
		t.Error(err)
	}
	write := func(name string, to func(*os.File) error) {
		t.Helper()
		file, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
			return
		}
		if err := to(file); err != nil {
			t.Error(err)
		}
		if err := file.Close(); err != nil {
			t.Error(err)
		}
	}
	write("soak.csv", func(f *os.File) error { return record.WriteCSV(f) })
	write("soak.svg", func(f *os.File) error { return record.WriteSVG(f) })
	// What is kept at rest, for go tool pprof.
	write("heap.pprof", func(f *os.File) error {
		resp, err := http.Get(s.server.Admin + "/debug/pprof/heap?gc=1")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		_, err = io.Copy(f, resp.Body)
		return err
	})
	if os.Getenv("SOAK_REPORT") != "" {
		t.Logf("report: %s", filepath.Join(dir, "soak.svg"))
	}
}

// summary is the run in words and tables, for whoever reads it.
func (s *soak) summary(record *series.Record) string {
	var b strings.Builder
	slices.Sort(s.late)
	late := func(q float64) time.Duration {
		if len(s.late) == 0 {
			return 0
		}
		return s.late[int(q*float64(len(s.late)-1))].Round(100 * time.Microsecond)
	}
	fmt.Fprintf(&b, "%s. Start and end are at rest; median, highest and trend are under load, after a warm-up of %s.\n\n",
		record.Title, series.Clock(record.WarmUp))
	b.WriteString(record.Markdown())
	fmt.Fprintf(&b, "\n%d audits were watched to their end, which was seen %v after the commit in the median, %v at most.\n\n| what happened | times |\n| --- | ---: |\n",
		len(s.late), late(0.5), late(1))
	for _, name := range slices.Concat([]string{visitCount}, visitNames(), auditEnds, []string{faultListener, faultPool, faultNetwork}) {
		fmt.Fprintf(&b, "| %s | %d |\n", name, s.counts[name])
	}
	return b.String()
}
