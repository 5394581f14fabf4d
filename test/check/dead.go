package check

import "math"

// mayLinger is how long a dead process may still count as a listener: until Redis
// has seen its connections end.
const mayLinger = int64(200e6)

// checkDead: nobody is handed a lock whose process has been dead for a while. It
// would cost all who wait the TTL of a holder that nobody wakes.
func checkDead(r *run) {
	const guarantee, checker = "G4", "the dead are skipped"
	if !r.steady() {
		return
	}
	for _, key := range r.keys {
		for _, o := range r.byKey[key] {
			dead := o.process.killed
			if dead == math.MaxInt64 {
				continue
			}
			for _, hold := range o.holds {
				if !hold.FromQueue {
					continue
				}
				r.examined(guarantee, checker, 1)
				set, _ := r.span(hold.Step)
				if late := set - dead; late > mayLinger && r.pauses.overlap(dead, set) == 0 {
					r.violation(guarantee, checker, key, []string{o.name},
						"%s was handed the lock %s after its process had been killed", o.name, milliseconds(late))
				}
			}
		}
	}
}
