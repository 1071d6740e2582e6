package soak

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/integration/series"
)

// report logs the table, and keeps it with the samples and the drawing where SOAK_REPORT says.
func (s *soak) report(t *testing.T, record *series.Record) {
	t.Helper()
	dir := os.Getenv("SOAK_REPORT")
	if dir == "" {
		dir = t.TempDir()
	}
	harness.NoError(t, os.MkdirAll(dir, 0o755))
	text := s.summary(record)
	t.Log("\n" + text)
	if err := os.WriteFile(filepath.Join(dir, "soak.md"), []byte(text), 0o644); err != nil {
		t.Error(err)
	}
	for name, write := range map[string]func(io.Writer) error{"soak.csv": record.WriteCSV, "soak.svg": record.WriteSVG, "heap.pprof": s.writeHeap} {
		var file bytes.Buffer
		if err := errors.Join(write(&file), os.WriteFile(filepath.Join(dir, name), file.Bytes(), 0o644)); err != nil {
			t.Error(err)
		}
	}
	if os.Getenv("SOAK_REPORT") != "" {
		t.Logf("report: %s", filepath.Join(dir, "soak.svg"))
	}
}

// writeHeap is what is kept at rest, for go tool pprof.
func (s *soak) writeHeap(file io.Writer) error {
	resp, err := http.Get(s.server.Admin + "/debug/pprof/heap?gc=1")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(file, resp.Body)
	return err
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
