package faults

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"auditstream/integration/harness"
	"auditstream/internal/testkit"
)

// Out of file descriptors, the service neither ends nor forgets the streams that it has, and takes new ones when there is
// room again. It says at start that the limit is too low.
func TestFaultOutOfFileDescriptors(t *testing.T) {
	t.Parallel()
	db := harness.NewDatabase(t)
	id := db.Insert(t, "status, progress", "'running', 10")
	limited := filepath.Join(t.TempDir(), "auditstream")
	script := fmt.Sprintf("#!/bin/sh\nulimit -n 100 && exec '%s' \"$@\"\n", harness.Binary(t))
	testkit.WriteProgram(t, limited, []byte(script))
	i := harness.Launch(t, limited, db.Serve)
	i.WaitReady(t, "up")
	if got := i.WaitLog(t, "this process may open too few files for SSE_MAX_STREAMS: raise the limit (ulimit -n, LimitNOFILE=) or lower SSE_MAX_STREAMS"); got["open_files_limit"] != 100.0 {
		t.Errorf("the warning says %v, want a limit of 100", got)
	}
	stream := i.Shown(t, id, harness.AliceToken(t))

	addr := strings.TrimPrefix(i.URL, "http://")
	var crowd []net.Conn
	for range 200 { // the kernel's queue takes those that the process cannot
		conn, err := net.DialTimeout("tcp", addr, harness.Patience)
		harness.NoError(t, err)
		crowd = append(crowd, conn)
	}
	// One that was not accepted gets no answer.
	last := crowd[len(crowd)-1]
	if _, err := last.Write([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	harness.NoError(t, last.SetReadDeadline(time.Now().Add(time.Second)))
	var timeout net.Error
	if _, err := last.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("the process still had descriptors: this test proves nothing (%v)", err)
	}

	db.SQL(t, "update audits set progress = 55 where id = "+id)
	stream.WantProgress(t, 55)
	for _, conn := range crowd {
		_ = conn.Close()
	}
	i.Watch(t, id, harness.AliceToken(t)).WantProgress(t, 55)
}
