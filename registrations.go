package auditstream

import (
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// registrations is a Registerer that collects its errors where others panic, and can unregister all that was registered. Safe for
// concurrent use.
type registrations struct {
	inner prometheus.Registerer

	mu   sync.Mutex
	ours []prometheus.Collector
	errs []error
}

func (r *registrations) Register(c prometheus.Collector) error {
	err := r.inner.Register(c)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.errs = append(r.errs, err)
		return err
	}
	r.ours = append(r.ours, c)
	return nil
}

// MustRegister does not panic: failure returns the error.
func (r *registrations) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		_ = r.Register(c)
	}
}

func (r *registrations) Unregister(c prometheus.Collector) bool { return r.inner.Unregister(c) }

func (r *registrations) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.errs) == 0 {
		return nil
	}
	return errors.Join(errors.New("Options.Registerer has metrics of an auditstream.Service already: give each service a registerer of its own, by prometheus.WrapRegistererWith"), r.errs[0])
}

func (r *registrations) unregister() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.ours {
		r.inner.Unregister(c)
	}
	r.ours = nil
}
