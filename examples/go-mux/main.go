// Command go-mux is an application with sessions and a router of its own, which shows the progress of its work: what auditstream adds is marked.
package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"auditstream" // auditstream

	"github.com/gorilla/mux"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

//go:embed page.html
var page []byte

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	if os.Getenv("DATABASE_URL") == "" {
		return errors.New("DATABASE_URL is not set; with a private PostgreSQL: auditstream dev ./start")
	}
	pool, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	a := &app{pool: pool, users: make(map[string]string)}
	as, err := auditstream.New(pool, auditstream.Options{Viewer: a.viewer}) // auditstream
	if err != nil {                                                         // auditstream
		return err // auditstream
	} // auditstream

	group, ctx := errgroup.WithContext(ctx)
	a.work = group
	router := mux.NewRouter()
	router.HandleFunc("/", a.home).Methods(http.MethodGet)
	router.HandleFunc("/audits", a.begin).Methods(http.MethodPost)
	router.PathPrefix("/api/v1/").Handler(as)     // auditstream
	group.Go(func() error { return as.Run(ctx) }) // auditstream
	srv := &http.Server{Addr: "127.0.0.1:" + port(), Handler: router, ReadHeaderTimeout: 5 * time.Second}
	group.Go(func() error { fmt.Printf("\nOpen http://%s/\n", srv.Addr); return srv.ListenAndServe() })
	group.Go(func() error { <-ctx.Done(); return srv.Shutdown(context.WithoutCancel(ctx)) })
	if err := group.Wait(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func port() string {
	if p := os.Getenv("PORT"); p != "" {
		return p
	}
	return "3000"
}

// app has the sessions: a cookie's value, and whose it is.
type app struct {
	pool *pgxpool.Pool
	work *errgroup.Group

	mu    sync.Mutex
	users map[string]string
}

// user is who is logged in.
func (a *app) user(r *http.Request) (string, bool) {
	cookie, err := r.Cookie("session")
	if err != nil {
		return "", false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	user, ok := a.users[cookie.Value]
	return user, ok
}

// home shows the page, and logs in whoever comes: an application of yours asks for a password.
func (a *app) home(w http.ResponseWriter, r *http.Request) {
	if _, ok := a.user(r); !ok {
		session := rand.Text()
		a.mu.Lock()
		a.users[session] = "user-" + rand.Text()
		a.mu.Unlock()
		http.SetCookie(w, &http.Cookie{Name: "session", Value: session, HttpOnly: true, SameSite: http.SameSiteLaxMode, Path: "/"})
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page)
}

// begin begins an audit, answers with its id, and works at it.
func (a *app) begin(w http.ResponseWriter, r *http.Request) {
	user, ok := a.user(r)
	if !ok {
		http.Error(w, "log in first", http.StatusUnauthorized)
		return
	}
	var id int64
	err := a.pool.QueryRow(r.Context(), "insert into audits (user_id, message) values ($1, 'Waiting...') returning id", user).Scan(&id)
	if err != nil {
		http.Error(w, "try again later", http.StatusServiceUnavailable)
		return
	}
	a.work.Go(func() error { return a.audit(id) })
	fmt.Fprint(w, id)
}

// audit is the work: plain SQL, and no word of who watches.
func (a *app) audit(id int64) error {
	for progress := 10; progress <= 100; progress += 10 {
		time.Sleep(300 * time.Millisecond)
		status, message := "running", fmt.Sprintf("Page %d of 100", progress)
		if progress == 100 {
			status, message = "completed", "Done"
		}
		_, err := a.pool.Exec(context.Background(), "update audits set status = $2, progress = $3, message = $4 where id = $1", id, status, progress, message)
		if err != nil {
			log.Print(err)
			return nil
		}
	}
	return nil
}

func (a *app) viewer(r *http.Request) (auditstream.Viewer, error) { // auditstream
	if user, ok := a.user(r); ok { // auditstream
		return auditstream.Viewer{UserID: user}, nil // auditstream
	} // auditstream
	return auditstream.Viewer{}, auditstream.ErrUnauthenticated // auditstream
} // auditstream
