package pgnotify

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A model of docs/watch-as-locks.md. The test explores all interleavings of writers of two rows in one bucket, with savepoints, and of
// instances that acquire the lock, are interrupted, release it in a flood, die and come back. Each mutant has a mistake that it must find.

const (
	modelRows      = 2
	modelInstances = 2
	modelWriters   = 2
)

// mutant is a mistake that the design could have. Each must be found.
type mutant struct {
	noSettling  bool // nobody waits for the transactions that tried the lock before it was held
	settleFirst bool // open transactions are listed before the lock is acquired
	noReread    bool // nothing is read after the lock was acquired
	snapshot    bool // open transactions above the snapshot's xmax are not listed
	tryFirst    bool // the writer tries the lock before it has a transaction id, as in a before trigger
}

type writerStep uint8

const (
	stepWrite     writerStep = iota // changes the row; the first write gives the transaction its id
	stepTryLock                     // try watched(b), exclusively, for a moment
	stepUnlock                      // release it
	stepSavepoint                   // stepUndo rolls back what follows
	stepUndo
	stepCommit
)

type writerOp struct {
	step writerStep
	row  uint8
}

// rowWrite is one update of a row in the trigger's order.
func (m mutant) rowWrite(row uint8) []writerOp {
	ops := []writerOp{{stepWrite, row}, {stepTryLock, row}, {stepUnlock, row}}
	if m.tryFirst {
		ops = []writerOp{{stepTryLock, row}, {stepUnlock, row}, {stepWrite, row}}
	}
	return ops
}

type set uint8 // a set of small numbers

func (b set) has(i int) bool  { return b>>i&1 == 1 }
func (b set) with(i int) set  { return b | 1<<i }
func (b set) minus(c set) set { return b &^ c }

// modelWriter is one transaction.
type modelWriter struct {
	pc                  uint8
	xid                 uint8 // 0: none yet
	ended               bool
	wrote               set // rows, and those before the savepoint
	saved               set
	notifies            set
	notifiesAtSavepoint set // at the savepoint
}

type phase uint8

const (
	phaseIdle    phase = iota // watches nothing
	phaseOpening              // read, before it is armed
	phaseArming
	phaseListing // armed; the open transactions are to be listed
	phaseReading // all is to be read
	phaseWatching
)

type modelInstance struct {
	phase  phase
	armed  bool
	waits  set  // transaction ids that may have tried the lock before
	listed bool // with settleFirst: the open transactions are listed
	dirty  set  // rows
	shown  [modelRows]uint8
	inbox  set // rows that notifications name; * is both
	starts uint8
	floods uint8
	deaths uint8
}

type modelState struct {
	rows      [modelRows]uint8 // committed versions
	nextXID   uint8
	completed uint8 // the newest id that has ended
	writers   [modelWriters]modelWriter
	exclusive uint8 // 1 + the writer that holds watched(b)
	instances [modelInstances]modelInstance
}

type model struct {
	mutant
	programs [modelWriters][]writerOp
	// How often an instance may begin, give its lock back in a flood, and die.
	starts         [modelInstances]uint8
	floods, deaths uint8
	seen           map[modelState]struct{}
}

func (s *modelState) open() (xids set) {
	for _, w := range s.writers {
		if w.xid != 0 && !w.ended {
			xids = xids.with(int(w.xid))
		}
	}
	return xids
}

// next returns all states that one step leads to, with what the step is.
func (m *model) next(s modelState) (steps []string, states []modelState) {
	add := func(step string, s modelState) { steps, states = append(steps, step), append(states, s) }
	for i, w := range s.writers {
		if w.ended {
			continue
		}
		n, op := s, m.programs[i][w.pc]
		if op.step == stepTryLock && s.exclusive == 0 && !s.watched() {
			n.exclusive = uint8(i + 1)
		}
		n.write(i, op)
		n.writers[i].pc++
		add(fmt.Sprintf("writer %d: %v", i, op), n)
	}
	for i, in := range s.instances {
		name := func(what string) string { return fmt.Sprintf("instance %d: %s", i, what) }
		change := func(what string, f func(n *modelState, in *modelInstance)) {
			n := s
			f(&n, &n.instances[i])
			add(name(what), n)
		}
		m.instanceSteps(s, in, m.starts[i], change)
	}
	return steps, states
}

func (s *modelState) watched() bool {
	for _, in := range s.instances {
		if in.armed {
			return true
		}
	}
	return false
}

func (s *modelState) write(i int, op writerOp) {
	w := &s.writers[i]
	switch op.step {
	case stepWrite:
		if w.xid == 0 {
			w.xid = s.nextXID
			s.nextXID++
		}
		w.wrote = w.wrote.with(int(op.row))
	case stepTryLock:
		if s.exclusive != uint8(i+1) { // somebody watches, or another writer tries the lock at this moment
			w.notifies = w.notifies.with(int(op.row))
		}
	case stepUnlock:
		if s.exclusive == uint8(i+1) {
			s.exclusive = 0
		}
	case stepSavepoint:
		w.saved, w.notifiesAtSavepoint = w.wrote, w.notifies
	case stepUndo:
		w.wrote, w.notifies = w.saved, w.notifiesAtSavepoint
	case stepCommit:
		w.ended = true
		s.completed = max(s.completed, w.xid)
		for row := range modelRows {
			if w.wrote.has(row) {
				s.rows[row]++
			}
		}
		for j := range s.instances { // also those that do not watch
			s.instances[j].inbox |= w.notifies
		}
	}
}

func (m *model) instanceSteps(s modelState, in modelInstance, starts uint8, change func(string, func(*modelState, *modelInstance))) {
	const all = set(1<<modelRows - 1)
	list := func(n *modelState, in *modelInstance) {
		in.waits = n.open()
		if m.snapshot { // pg_snapshot_xip alone
			in.waits &= 1<<(n.completed+1) - 1
		}
		if m.noSettling {
			in.waits = 0
		}
	}
	switch in.phase {
	case phaseIdle:
		if in.starts < starts {
			change("opens", func(n *modelState, in *modelInstance) { in.starts++; in.phase = phaseOpening })
		}
		return
	case phaseOpening: // the first event is shown before anything is armed
		change("reads", func(n *modelState, in *modelInstance) { in.shown = n.rows; in.phase = phaseArming })
	case phaseArming:
		if m.settleFirst && !in.listed {
			change("lists", func(n *modelState, in *modelInstance) { list(n, in); in.listed = true })
		} else if s.exclusive == 0 { // otherwise it is tried again
			change("arms", func(n *modelState, in *modelInstance) {
				in.armed, in.listed, in.phase = true, false, phaseListing
				if m.settleFirst {
					in.phase = phaseReading
				}
			})
		}
	case phaseListing:
		change("lists", func(n *modelState, in *modelInstance) { list(n, in); in.phase = phaseReading })
	case phaseReading:
		change("marks all", func(n *modelState, in *modelInstance) {
			if !m.noReread {
				in.dirty = all
			}
			in.phase = phaseWatching
		})
	}
	if in.inbox != 0 {
		change("hears", func(n *modelState, in *modelInstance) { in.dirty |= in.inbox; in.inbox = 0 })
	}
	if in.dirty != 0 && in.phase != phaseOpening {
		change("reads what is dirty", func(n *modelState, in *modelInstance) {
			for row := range modelRows {
				if in.dirty.has(row) {
					in.shown[row] = n.rows[row]
				}
			}
			in.dirty = 0
		})
	}
	if ended := in.waits.minus(s.open()); ended != 0 && in.phase == phaseWatching {
		change("sees transactions end", func(n *modelState, in *modelInstance) { in.waits = in.waits.minus(ended); in.dirty = all })
	}
	if in.phase == phaseWatching && in.floods < m.floods { // the flood ends at once, and it acquires the lock again
		change("floods", func(n *modelState, in *modelInstance) {
			in.floods++
			in.armed, in.waits, in.phase = false, 0, phaseArming
		})
	}
	if in.phase > phaseOpening && in.deaths < m.deaths {
		change("dies", func(n *modelState, in *modelInstance) {
			*in = modelInstance{starts: in.starts, deaths: in.deaths + 1, floods: in.floods}
		})
	}
}

// explore returns the shortest of the ways that it finds to a state in which nothing happens any more and a viewer sees what is no
// longer so; nil: there is none.
func (m *model) explore() (trace []string) {
	type node struct {
		parent int
		step   string
		state  modelState
	}
	nodes := []node{{parent: -1, state: modelState{nextXID: 1}}}
	m.seen = map[modelState]struct{}{nodes[0].state: {}}
	for at := 0; at < len(nodes); at++ {
		steps, states := m.next(nodes[at].state)
		missed := false
		for _, in := range nodes[at].state.instances {
			missed = missed || in.phase == phaseWatching && in.shown != nodes[at].state.rows
		}
		if missed && !slices.ContainsFunc(steps, func(step string) bool { return !voluntary(step) }) {
			for ; at >= 0; at = nodes[at].parent {
				trace = append(trace, nodes[at].step)
			}
			slices.Reverse(trace)
			return trace[1:]
		}
		for i, state := range states {
			if _, ok := m.seen[state]; !ok {
				m.seen[state] = struct{}{}
				nodes = append(nodes, node{at, steps[i], state})
			}
		}
	}
	return nil
}

// voluntary steps may never be taken, so that nothing may depend on them.
func voluntary(step string) bool {
	return strings.HasSuffix(step, "opens") || strings.HasSuffix(step, "floods") || strings.HasSuffix(step, "dies")
}

// newModels returns the two models that are explored: two writers beside one instance that gives up, dies and begins again, and
// beside two that do none of it.
func newModels(wrong mutant) []*model {
	a := slices.Concat(wrong.rowWrite(0), []writerOp{{step: stepSavepoint}}, wrong.rowWrite(1), []writerOp{{step: stepUndo}, {step: stepCommit}})
	b := slices.Concat([]writerOp{{step: stepSavepoint}}, wrong.rowWrite(0), []writerOp{{step: stepUndo}}, wrong.rowWrite(1), []writerOp{{step: stepCommit}})
	short := slices.Concat(wrong.rowWrite(0), []writerOp{{step: stepCommit}})
	return []*model{
		{mutant: wrong, programs: [modelWriters][]writerOp{a, b}, starts: [modelInstances]uint8{2, 0}, floods: 1, deaths: 1},
		{mutant: wrong, programs: [modelWriters][]writerOp{a, short}, starts: [modelInstances]uint8{1, 1}},
	}
}

func TestModelOfTheLocksMissesNothing(t *testing.T) {
	for _, m := range newModels(mutant{}) {
		if trace := m.explore(); trace != nil {
			t.Errorf("a change is missed:\n%s", strings.Join(trace, "\n"))
		}
		t.Log(len(m.seen), "states")
	}
}

func TestModelOfTheLocksFindsEachMistake(t *testing.T) {
	for name, wrong := range map[string]mutant{
		"open transactions are not waited for":            {noSettling: true},
		"open transactions are listed too early":          {settleFirst: true},
		"nothing is read after the lock was taken":        {noReread: true},
		"only what a snapshot names counts as open":       {snapshot: true},
		"a writer looks before it has a transaction's id": {tryFirst: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newModels(wrong)[0]
			trace := m.explore()
			if trace == nil {
				t.Fatalf("not found in %d states", len(m.seen))
			}
			t.Logf("%d states:\n%s", len(m.seen), strings.Join(trace, "\n"))
		})
	}
}
