package probe

import "fmt"

// Mode is how segments travel between the NIC and the broker. The zero Mode is none: serve would not start.
type Mode uint8

// The modes, weakest first.
const (
	None     Mode = iota // serve refuses to start
	Standard             // the host's TCP
	Generic              // XDP behind the kernel's sk_buff: any driver, one copy, no gain
	Native               // XDP in the driver, frames are copied
	ZeroCopy             // XDP in the driver, the NIC reads and writes the umem
)

// String gives the words for people.
func (m Mode) String() string {
	return [...]string{"none", "standard", "xdp generic", "xdp native copy", "xdp zero-copy"}[m]
}

// MarshalText gives the word for programs: none, standard, xdp-generic, xdp-native or xdp-zerocopy.
func (m Mode) MarshalText() ([]byte, error) { return []byte(modeTokens()[m]), nil }

// UnmarshalText reads what MarshalText wrote.
func (m *Mode) UnmarshalText(text []byte) error {
	for i, token := range modeTokens() {
		if token == string(text) {
			*m = Mode(i)
			return nil
		}
	}
	return fmt.Errorf("mode %q: want one of %q", text, modeTokens())
}

func modeTokens() [5]string {
	return [...]string{"none", "standard", "xdp-generic", "xdp-native", "xdp-zerocopy"}
}

// Wish is the value of serve's flag --mode.
type Wish string

// The wishes.
const (
	WishAuto     Wish = "auto"     // XDP where named interfaces have zero-copy, else standard
	WishXDP      Wish = "xdp"      // XDP or nothing
	WishStandard Wish = "standard" // the host's TCP
)

// ParseWish reads auto, xdp or standard.
func ParseWish(name string) (Wish, error) {
	switch w := Wish(name); w {
	case WishAuto, WishXDP, WishStandard:
		return w, nil
	}
	return "", fmt.Errorf("mode %q: use auto, xdp or standard", name)
}

// ParseRequire reads a value of --xdp-require, the weakest mode to accept, or of --xdp-limit, the strongest to try. Any and
// generic are the same.
func ParseRequire(name string) (Mode, error) {
	switch name {
	case "any", "generic":
		return Generic, nil
	case "native":
		return Native, nil
	case "zerocopy":
		return ZeroCopy, nil
	}
	return None, fmt.Errorf("XDP mode %q: use any, generic, native or zerocopy", name)
}

// Plan is what serve is asked to do. Zero fields mean what each says.
type Plan struct {
	Wish    Wish   `json:"mode"`        // empty means auto
	Require Mode   `json:"xdp_require"` // the weakest mode that mode xdp accepts, None means Native; mode auto accepts ZeroCopy only
	Limit   Mode   `json:"xdp_limit"`   // the strongest mode to try, None means ZeroCopy
	Port    uint16 `json:"port"`        // TCP port of the broker, 0 means 1883

	FrameSizeBytes int   `json:"frame_size_bytes"`      // 2048 or 4096; 0 means 2048
	Queues         []int `json:"queues,omitempty"`      // the RX queues to bind on every interface; none means all
	AllowUnbound   bool  `json:"allow_unbound_queues"`  // what RSS delivers to other queues may stay with the kernel
	UmemBytes      int64 `json:"umem_bytes_per_queue"`  // memory of one queue's umem; 0 means the default of package xdp
	Descriptors    int64 `json:"descriptors,omitempty"` // how many the broker wants, 0 means not known
}

const (
	defaultPort      = 1883
	defaultFrameSize = 2048
	// A queue's umem has by default, in package xdp, 16384 receive frames, 4096 transmit frames and a buffer of 256 KiB.
	defaultFrames      = 16384 + 4096
	defaultBufferBytes = 256 << 10
)

// Complete replaces zero fields by what they mean.
func (p Plan) Complete() Plan {
	if p.Wish == "" {
		p.Wish = WishAuto
	}
	if p.Require == None {
		p.Require = Native
	}
	if p.Limit == None {
		p.Limit = ZeroCopy
	}
	if p.Wish == WishAuto {
		p.Require = ZeroCopy
	}
	if p.Port == 0 {
		p.Port = defaultPort
	}
	if p.FrameSizeBytes == 0 {
		p.FrameSizeBytes = defaultFrameSize
	}
	if p.UmemBytes == 0 {
		p.UmemBytes = int64(defaultFrames*p.FrameSizeBytes + defaultBufferBytes)
	}
	return p
}

const (
	frameHeadroomBytes = 256 // XDP_PACKET_HEADROOM, which the kernel leaves free before a received packet.
	linkHeaderBytes    = 22  // Ethernet and two VLAN tags.
)

// MaxMTU is the largest MTU, in bytes, of which every packet fits into one frame: 1770 for frames of 2048 bytes, 3818 for 4096.
func (p Plan) MaxMTU() int { return p.Complete().FrameSizeBytes - frameHeadroomBytes - linkHeaderBytes }
