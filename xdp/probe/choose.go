package probe

import (
	"fmt"
	"slices"
	"strings"
)

// Choice is the mode that serve would take, and why.
type Choice struct {
	Mode   Mode   `json:"mode"`             // None when serve would not start
	Trial  bool   `json:"trial"`            // the kernel does not tell what the driver can: opening it may still end in less
	Reason string `json:"reason"`           // one sentence
	Remedy string `json:"remedy,omitempty"` // the command that leads to a stronger mode; empty when there is none

	// Running says that a ringmq that runs already is all that keeps another from starting.
	Running bool `json:"running,omitempty"`
}

// String is the line that serve logs and doctor ends with.
func (c Choice) String() string { return fmt.Sprintf("%v: %s", c.Mode, c.Reason) }

// Choose says which mode serve takes on interfaces that were named, all of them alike: one that cannot take part keeps XDP
// from all. Mode auto falls back to standard and says why in one line, mode xdp refuses.
func Choose(host HostFacts, interfaces []InterfaceFacts, plan Plan) Choice {
	plan = plan.Complete()
	findings := Findings(host, interfaces, plan)
	if at := slices.IndexFunc(findings, func(f Finding) bool { return f.everyMode }); at >= 0 && plan.Wish != WishXDP {
		return findings[at].refusal(None, findings)
	}
	switch {
	case plan.Wish == WishStandard:
		return Choice{Mode: Standard, Reason: "--mode standard asks for it"}
	case len(interfaces) == 0 && plan.Wish == WishAuto:
		return Choice{Mode: Standard, Reason: "XDP is considered only on interfaces that --interface names"}
	case len(interfaces) == 0:
		return Choice{Reason: "mode xdp needs an interface", Remedy: serveCommand("--mode xdp --interface NAME", nil, plan)}
	}
	refused := None
	if plan.Wish == WishAuto {
		refused = Standard
	}
	for _, wanted := range []string{"driver", ""} { // What no command changes comes before what one does.
		for _, f := range findings {
			if f.stops(plan) && (wanted == "" || f.Topic == wanted) {
				return f.refusal(refused, findings)
			}
		}
	}
	return weakest(interfaces, plan)
}

// refusal is the choice that a finding leaves.
func (f Finding) refusal(mode Mode, all []Finding) Choice {
	wrong := slices.ContainsFunc(all, func(f Finding) bool { return f.Severity == Problem })
	return Choice{Mode: mode, Reason: f.where() + f.Says, Remedy: f.Remedy, Running: mode == None && !wrong}
}

// stops says that a finding keeps XDP from being taken.
func (f Finding) stops(plan Plan) bool {
	return f.Severity == Problem || f.Severity == Running || plan.Wish == WishAuto && f.Severity == Warning && f.Topic == "driver"
}

// where is the interface for sentences that do not begin with it.
func (f Finding) where() string {
	if f.Interface == "" || strings.HasPrefix(f.Says, f.Interface+" ") {
		return ""
	}
	return f.Interface + ": "
}

// weakest is what all interfaces offer.
func weakest(interfaces []InterfaceFacts, plan Plan) Choice {
	c := Choice{Mode: plan.Limit}
	var titles []string
	for _, i := range interfaces {
		strongest := plan.offered(i)
		titles = append(titles, i.title())
		if !strongest.Known() {
			c.Trial = true
			continue
		}
		c.Mode = min(c.Mode, strongest.Value)
	}
	verb := "offers"
	if len(titles) > 1 {
		verb = "offer"
	}
	c.Reason = fmt.Sprintf("%s %s it", and(titles), verb)
	if c.Trial {
		c.Reason = fmt.Sprintf("to be tried on %s, for this kernel does not list what drivers can", and(titles))
	}
	return c
}
