package localpg

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is the account that the server runs as.
type account struct {
	name       string
	uid, gid   int
	credential *syscall.Credential // nil: the account of this process
}

// chooseAccount returns this process's account or, for root, postgres or nobody.
func chooseAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{name: "uid " + strconv.Itoa(os.Geteuid()), uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("localpg: account %s: %w", name, err)
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return account{}, fmt.Errorf("localpg: account %s: %w", name, err)
		}
		return account{
			name: name, uid: int(uid), gid: int(gid),
			credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)},
		}, nil
	}
	return account{}, errors.New("localpg: PostgreSQL does not run as root, and there is neither an account postgres nor nobody")
}

// command returns a command that runs a program of PostgreSQL as the account, in a process group of its own: Ctrl-C in the terminal must reach
// only this process, which then stops the server properly.
func (a account) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/" // the account may be unable to enter our working directory
	cmd.SysProcAttr = sysProcAttr(a.credential)
	// PGDATA, PGPORT and others would change what the programs do, and the locale would change the words of the log.
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "PG") && !strings.HasPrefix(kv, "LC_") && !strings.HasPrefix(kv, "LANG") {
			cmd.Env = append(cmd.Env, kv)
		}
	}
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	return cmd
}

func (a account) chown(path string) error {
	if a.credential == nil {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// chooseHome sets home to dir. When root runs us where the account cannot enter (below a home directory of mode 700), home is a directory in
// the temporary directory, always the same one for the same dir.
func (s *Server) chooseHome(ctx context.Context) error {
	if s.account.credential == nil {
		s.home = s.dir
		return nil
	}
	if err := s.canEnter(ctx, "/"); err != nil {
		return fmt.Errorf("localpg: account %s cannot run %s: %w", s.account.name, s.bin.path("postgres"), err)
	}
	if err := makeEnterable(s.dir); err != nil {
		return err
	}
	if s.canEnter(ctx, s.dir) == nil {
		s.home = s.dir
		return nil
	}
	sum := sha256.Sum256([]byte(s.dir))
	name := "localpg-" + hex.EncodeToString(sum[:8])
	for _, temp := range []string{os.TempDir(), "/tmp"} { // the account may be unable to enter root's TMPDIR, too
		if s.canEnter(ctx, temp) != nil {
			continue
		}
		home := filepath.Join(temp, name)
		if err := makeTempHome(home); err != nil {
			return err
		}
		return s.useHome(home)
	}
	return fmt.Errorf("localpg: account %s can enter neither %s nor %s: use a directory that is open to it",
		s.account.name, s.dir, os.TempDir())
}

func (s *Server) useHome(home string) error {
	s.home = home
	s.log.Info("data directory is elsewhere, since the server's account cannot enter this one",
		"dir", s.dir, "account", s.account.name, "data", s.data())
	if err := os.WriteFile(filepath.Join(s.dir, "location"), []byte(home+"\n"), 0o644); err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	return nil
}

// canEnter tries to enter dir as the account. Mode bits alone would not tell, because of access lists and namespaces.
func (s *Server) canEnter(ctx context.Context, dir string) error {
	cmd := s.account.command(ctx, s.bin.path("postgres"), "--version")
	cmd.Dir = dir
	return cmd.Run()
}

func makeEnterable(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	if err := os.Chmod(dir, info.Mode().Perm()|0o011); err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	return nil
}

// makeTempHome makes a directory where everybody can write, or reuses that of an earlier run. Its name can be guessed, so a directory that
// somebody else has made is refused.
func makeTempHome(dir string) error {
	if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("localpg: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	if !info.IsDir() || ownerUID(info) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("localpg: %s was made by somebody else: remove it", dir)
	}
	return makeEnterable(dir)
}

func ownerUID(info os.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}
