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

// account is whom the server runs as.
type account struct {
	name       string
	uid, gid   int
	credential *syscall.Credential // nil: ourselves
}

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

// command prepares a program of PostgreSQL to run as the account, in a process group of its own: a Ctrl-C in the
// terminal must reach us only, so that we can stop the server in order.
func (a account) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/" // ours may be closed to the account
	cmd.SysProcAttr = sysProcAttr(a.credential)
	// PGDATA, PGPORT and the like would change what the programs do; the language would change the words of the log.
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

// chooseHome settles where the data goes: in dir, or, when root runs us in a place closed to the account (below a
// home directory of mode 700), in a directory of the temporary directory that the same dir always leads to.
func (s *Server) chooseHome(ctx context.Context) error {
	if s.account.credential == nil {
		s.home = s.dir
		return nil
	}
	if err := s.enters(ctx, "/"); err != nil {
		return fmt.Errorf("localpg: account %s cannot run %s: %w", s.account.name, s.bin.path("postgres"), err)
	}
	if err := allowEntering(s.dir); err != nil {
		return err
	}
	if s.enters(ctx, s.dir) == nil {
		s.home = s.dir
		return nil
	}
	sum := sha256.Sum256([]byte(s.dir))
	name := "localpg-" + hex.EncodeToString(sum[:8])
	for _, temp := range []string{os.TempDir(), "/tmp"} { // root's TMPDIR may be closed as well
		if s.enters(ctx, temp) != nil {
			continue
		}
		home := filepath.Join(temp, name)
		if err := makeOwnDir(home); err != nil {
			return err
		}
		return s.moveTo(home)
	}
	return fmt.Errorf("localpg: account %s can enter neither %s nor %s: use a directory that is open to it",
		s.account.name, s.dir, os.TempDir())
}

func (s *Server) moveTo(home string) error {
	s.home = home
	s.log.Info("data directory is elsewhere, since the server's account cannot enter this one",
		"dir", s.dir, "account", s.account.name, "data", s.data())
	if err := os.WriteFile(filepath.Join(s.dir, "location"), []byte(home+"\n"), 0o644); err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	return nil
}

// enters tries it as the account, which no reading of mode bits can replace (access lists, namespaces).
func (s *Server) enters(ctx context.Context, dir string) error {
	cmd := s.account.command(ctx, s.bin.path("postgres"), "--version")
	cmd.Dir = dir
	return cmd.Run()
}

func allowEntering(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	if err := os.Chmod(dir, info.Mode().Perm()|0o011); err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	return nil
}

// makeOwnDir makes a directory below a place where everybody can write, or takes it over from an earlier run. Its
// name can be guessed, so one that somebody else made first is refused.
func makeOwnDir(dir string) error {
	if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("localpg: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("localpg: %w", err)
	}
	if !info.IsDir() || owner(info) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("localpg: %s was made by somebody else: remove it", dir)
	}
	return allowEntering(dir)
}

func owner(info os.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}
