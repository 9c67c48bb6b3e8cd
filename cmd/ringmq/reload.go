package main

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/ringmq/ringmq/bpf"
	"github.com/ringmq/ringmq/broker/credentials"
)

// reload is SIGHUP: it reads the password file again, and what the configuration says about sources. Clients stay connected.
func (p *process) reload() {
	if p.path == "" && p.settings.Passwords == "" {
		p.log.Info("nothing to reload: there is neither a configuration nor a password file")
		return
	}
	if p.path != "" {
		p.reloadConfiguration()
	}
	if p.settings.Passwords != "" {
		p.reloadUsers()
	}
}

func (p *process) reloadUsers() {
	users, err := credentials.Load(p.settings.Passwords)
	if err != nil {
		p.log.Error("not reloaded, the old users stay", "error", err)
		return
	}
	for _, w := range users.Warnings() {
		p.log.Warn(w)
	}
	if n := authBytes(users); n > p.limits.AuthBytes {
		p.log.Warn("verifying these passwords takes more memory than was planned for at the start", "bytes", n, "planned", p.limits.AuthBytes, "remedy", "restart")
	}
	p.auth.users.Store(users)
	p.log.Info("reloaded", "passwords", p.settings.Passwords, "users", users.Len())
}

// reloadConfiguration takes over how the file's lists of sources and limits of SYNs have changed since it was last read, so that what
// ringmq xdp has changed meanwhile stays; it names the other keys that have changed.
func (p *process) reloadConfiguration() {
	next, err := readConfiguration(p.path)
	if err == nil {
		if err = p.bypass.reload(&p.file.XDP, &next.XDP); err != nil { // such as too many prefixes
			err = errors.Join(err, p.bypass.reload(&next.XDP, &p.file.XDP))
		}
	}
	if err != nil {
		p.log.Error("not reloaded, the old configuration stays", "error", err)
		return
	}
	p.log.Info("reloaded", "configuration", p.path)
	if keys := changedKeys("", reflect.ValueOf(p.file), reflect.ValueOf(next)); len(keys) > 0 {
		p.log.Warn("changed keys need a restart", "keys", strings.Join(keys, ", "))
	}
	p.file.XDP = next.XDP.sourcesOver(p.file.XDP)
}

// sourceKeys are the keys of the table [xdp] that act at once.
var sourceKeys = [...]string{"xdp.deny", "xdp.allow", "xdp.syn_exempt", "xdp.syn_rate", "xdp.syn_burst", "xdp.syn_global_rate", "xdp.syn_global_burst"}

// sourcesOver is old with what x says about sources.
func (x *xdpSettings) sourcesOver(old xdpSettings) xdpSettings {
	old.Deny, old.Allow, old.SYNExempt = x.Deny, x.Allow, x.SYNExempt
	old.SYNRate, old.SYNBurst, old.SYNGlobalRate, old.SYNGlobalBurst = x.SYNRate, x.SYNBurst, x.SYNGlobalRate, x.SYNGlobalBurst
	return old
}

// reload changes on every interface what differs between two readings of the configuration.
func (b *bypass) reload(old, next *xdpSettings) error {
	before, err := old.lists()
	if err != nil {
		return err
	}
	after, err := next.lists()
	if err != nil {
		return err
	}
	for _, l := range b.lanes {
		for _, list := range [...]bpf.List{bpf.Deny, bpf.Allow, bpf.Exempt} {
			if err := l.Program().RemovePrefixes(list, without(before[list], after[list])...); err != nil {
				return err
			}
			if err := l.Program().AddPrefixes(list, without(after[list], before[list])...); err != nil {
				return err
			}
		}
		if next.synLimit() == old.synLimit() {
			continue
		}
		if err := l.Program().SetSYNLimit(next.synLimit()); err != nil {
			return err
		}
	}
	return nil
}

// without are the prefixes of a that are not in b.
func without(a, b []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(a), func(p netip.Prefix) bool { return slices.Contains(b, p) })
}

// changedKeys names the keys that differ and do not act at once.
func changedKeys(table string, old, next reflect.Value) (keys []string) {
	for i := range old.NumField() {
		field := old.Type().Field(i)
		name := table + field.Tag.Get("toml")
		switch {
		case !field.IsExported() || slices.Contains(sourceKeys[:], name):
		case field.Type.Kind() == reflect.Struct:
			keys = append(keys, changedKeys(name+".", old.Field(i), next.Field(i))...)
		case !reflect.DeepEqual(old.Field(i).Interface(), next.Field(i).Interface()):
			keys = append(keys, name)
		}
	}
	return keys
}
