package sim

// Shrink makes a Script shorter that violates a rule: it leaves out ever smaller parts as long as the same rule stays
// violated, then calms turns. It plays at most that many Scripts.
func Shrink(s Script, rule string, most int) Script {
	fails := func(t Script) bool {
		if most <= 0 {
			return false
		}
		most--
		r := Play(t, Options{})
		return r.Violation != nil && r.Violation.Rule == rule
	}
	return shrink(s, fails)
}

func shrink(s Script, fails func(Script) bool) Script {
	s = cutTail(s, fails)
	for size := len(s) / 2; size > 0; {
		t := without(s, size, fails)
		if len(t) < len(s) {
			s, size = t, min(size, len(t)/2)
			continue
		}
		size /= 2
	}
	return simplify(s, fails)
}

// cutTail finds the shortest beginning that fails, which for most rules is where the rule was violated.
func cutTail(s Script, fails func(Script) bool) Script {
	low, high := 1, len(s)
	for low < high {
		if middle := (low + high) / 2; fails(s[:middle]) {
			high = middle
		} else {
			low = middle + 1
		}
	}
	if high < len(s) {
		return s[:high]
	}
	return s
}

// without leaves out parts of a size, from the end to the beginning, where that may be.
func without(s Script, size int, fails func(Script) bool) Script {
	for to := len(s); to > 1; to -= size {
		from := max(1, to-size)
		t := append(append(Script{}, s[:from]...), s[to:]...)
		if fails(t) {
			s = t
		}
	}
	return s
}

// simplify makes turns calm and leaves out numbers.
func simplify(s Script, fails func(Script) bool) Script {
	for i := range s {
		for k := len(s[i].Args) - 1; k >= 0; k-- {
			t := append(Script{}, s...)
			t[i].Args = append(append([]Arg{}, s[i].Args[:k]...), s[i].Args[k+1:]...)
			if fails(t) {
				s = t
			}
		}
	}
	return s
}
