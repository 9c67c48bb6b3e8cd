package probe

import (
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// Programs gives the XDP programs on the interfaces of the calling thread's network namespace, and those of ringmq on other
// namespaces' interfaces as far as this process may look.
func Programs() ([]Attached, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the network interfaces: %w", err)
	}
	var list []Attached
	for _, l := range links {
		a := l.Attrs()
		programs, err := readPrograms(a.Index)
		if err != nil {
			return nil, fmt.Errorf("interface %q: look for XDP programs: %w", a.Name, err)
		}
		for _, p := range programs {
			list = append(list, Attached{a.Name, a.Index, p})
		}
	}
	list = append(list, elsewhere(list)...)
	var wanted []string
	for _, a := range list {
		wanted = append(wanted, linkName(a.LinkID.Value))
	}
	if len(list) == 0 {
		return list, nil
	}
	found := holders(files{os.DirFS("/")}, wanted)
	for i := range list {
		list[i].Holder = list[i].holder(found)
	}
	return list, nil
}

// elsewhere are the programs of ringmq on interfaces that are not here: its links are in the kernel's list of all.
func elsewhere(here []Attached) (list []Attached) {
	links := link.Iterator{}
	defer links.Close()
	for links.Next() {
		info, err := links.Link.Info()
		if err != nil || info.XDP() == nil {
			continue // Gone meanwhile, or another kind.
		}
		id, index := uint32(info.Program), int(info.XDP().Ifindex)
		if slices.ContainsFunc(here, func(a Attached) bool { return a.ID == id }) {
			continue
		}
		if p := program(id, "", index); p.isOurs() {
			p.LinkID = known(uint32(info.ID))
			list = append(list, Attached{Index: index, Program: p})
		}
	}
	return list
}
