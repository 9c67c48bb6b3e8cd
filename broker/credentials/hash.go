package credentials

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Kind is a way to hash a password.
type Kind uint8

const (
	// Argon2id is the default: memory-hard, as Mosquitto 2.1 writes it.
	Argon2id Kind = iota + 1
	// PBKDF2 is PBKDF2 with HMAC-SHA-512, which Mosquitto reads since 2.0.
	PBKDF2
	// SHA512 is one salted SHA-512, which Mosquitto wrote before 2.0. It is read, never written.
	SHA512
)

// String gives the name that mosquitto_passwd -H knows.
func (k Kind) String() string {
	switch k {
	case Argon2id:
		return "argon2id"
	case PBKDF2:
		return "sha512-pbkdf2"
	case SHA512:
		return "sha512"
	}
	return "Kind(" + strconv.Itoa(int(k)) + ")"
}

// ParseKind reads the name of a kind that can be written: argon2id or sha512-pbkdf2.
func ParseKind(name string) (Kind, error) {
	for _, k := range [...]Kind{Argon2id, PBKDF2} {
		if name == k.String() {
			return k, nil
		}
	}
	return 0, fmt.Errorf("unknown hash %q: use argon2id or sha512-pbkdf2", name)
}

// What we write. Argon2id has Mosquitto 2.1's cost, which is also the first choice of OWASP's Password Storage
// Cheat Sheet, and PBKDF2 has that sheet's iterations for SHA-512. The lengths of salt and digest follow RFC 9106
// section 3.1; Mosquitto takes a PBKDF2 salt of 12 or 64 bytes only.
const (
	argon2MemoryKiB    = 46 << 10
	argon2Passes       = 1
	argon2Lanes        = 1
	argon2SaltBytes    = 16
	argon2DigestBytes  = 32
	pbkdf2Iterations   = 210_000
	pbkdf2SaltBytes    = 12
	argon2idPrefix     = "$argon2id$"
	pbkdf2Prefix       = "$7$"
	sha512Prefix       = "$6$"
	argon2idParameters = "v=19$m=%d,t=%d,p=%d"
)

// What we read: beyond these one line of the file could hold the broker's memory or a core for seconds.
const (
	argon2MemoryMaxKiB  = 256 << 10
	argon2PassesMax     = 10
	argon2LanesMax      = 16
	pbkdf2IterationsMax = 2_000_000
	saltMinBytes        = 8
	saltMaxBytes        = 64
	digestMinBytes      = 16
	digestMaxBytes      = 64
)

// cost is what decides how long a hash takes; comparable, so that the most common cost of a file can be counted.
// Argon2id uses all fields, PBKDF2 has only passes, SHA512 none.
type cost struct {
	kind      Kind
	passes    uint32
	memoryKiB uint32
	lanes     uint8
}

// hash is one parsed second field of a line.
type hash struct {
	cost   cost
	salt   []byte
	digest []byte
}

// parseHash reads the second field of a line.
func parseHash(field string) (hash, error) {
	switch {
	case strings.HasPrefix(field, argon2idPrefix):
		return parseArgon2id(strings.TrimPrefix(field, argon2idPrefix))
	case strings.HasPrefix(field, pbkdf2Prefix):
		return parsePBKDF2(strings.TrimPrefix(field, pbkdf2Prefix))
	case strings.HasPrefix(field, sha512Prefix):
		return decode(cost{kind: SHA512}, base64.StdEncoding, strings.TrimPrefix(field, sha512Prefix))
	case strings.HasPrefix(field, "$"):
		return hash{}, errors.New("the hash is none of $argon2id$, $7$ and $6$")
	}
	return hash{}, errors.New("the password is not hashed: run ringmq passwd -U on the file")
}

func parseArgon2id(rest string) (hash, error) {
	at := len(rest)
	for range 2 { // Salt and digest are the last two fields.
		at = strings.LastIndexByte(rest[:max(at, 0)], '$')
	}
	if at < 0 {
		return hash{}, errors.New("an argon2id hash is $argon2id$v=19$m=KIB,t=PASSES,p=LANES$SALT$DIGEST")
	}
	c := cost{kind: Argon2id}
	_, err := fmt.Sscanf(rest[:at], argon2idParameters, &c.memoryKiB, &c.passes, &c.lanes)
	if err != nil || fmt.Sprintf(argon2idParameters, c.memoryKiB, c.passes, c.lanes) != rest[:at] {
		return hash{}, fmt.Errorf("argon2id parameters %q are not v=19$m=KIB,t=PASSES,p=LANES", rest[:at])
	}
	if err := c.checkArgon2id(); err != nil {
		return hash{}, err
	}
	return decode(c, base64.RawStdEncoding, rest[at+1:])
}

func (c cost) checkArgon2id() error {
	const again = "set the password again with ringmq passwd"
	switch {
	case c.memoryKiB > argon2MemoryMaxKiB:
		return fmt.Errorf("argon2id with m=%d KiB is more than the %d that we allow one connection: %s",
			c.memoryKiB, argon2MemoryMaxKiB, again)
	case c.passes < 1 || c.passes > argon2PassesMax:
		return fmt.Errorf("argon2id with t=%d is outside 1 to %d: %s", c.passes, argon2PassesMax, again)
	case c.lanes < 1 || c.lanes > argon2LanesMax:
		return fmt.Errorf("argon2id with p=%d is outside 1 to %d: %s", c.lanes, argon2LanesMax, again)
	case c.memoryKiB < 8*uint32(c.lanes): // RFC 9106, section 3.1.
		return fmt.Errorf("argon2id with m=%d is less than 8 KiB for each of p=%d lanes: %s", c.memoryKiB, c.lanes, again)
	}
	return nil
}

func parsePBKDF2(rest string) (hash, error) {
	count, rest, found := strings.Cut(rest, "$")
	n, err := strconv.ParseUint(count, 10, 32)
	if !found || err != nil {
		return hash{}, errors.New("a PBKDF2 hash is $7$ITERATIONS$SALT$DIGEST")
	}
	if n < 1 || n > pbkdf2IterationsMax {
		return hash{}, fmt.Errorf("PBKDF2 with %d iterations is outside 1 to %d: set the password again with ringmq passwd",
			n, pbkdf2IterationsMax)
	}
	return decode(cost{kind: PBKDF2, passes: uint32(n)}, base64.StdEncoding, rest)
}

// decode reads SALT$DIGEST.
func decode(c cost, enc *base64.Encoding, text string) (hash, error) {
	saltText, digestText, found := strings.Cut(text, "$")
	if !found {
		return hash{}, fmt.Errorf("the %v hash has no digest behind its salt", c.kind)
	}
	salt, saltErr := enc.Strict().DecodeString(saltText)
	digest, digestErr := enc.Strict().DecodeString(digestText)
	switch {
	case saltErr != nil || digestErr != nil:
		return hash{}, fmt.Errorf("the salt or the digest of the %v hash is not base64", c.kind)
	case len(salt) < saltMinBytes || len(salt) > saltMaxBytes:
		return hash{}, fmt.Errorf("the salt of the %v hash has %d bytes, not %d to %d", c.kind, len(salt), saltMinBytes, saltMaxBytes)
	case c.kind != Argon2id && len(digest) != sha512.Size:
		return hash{}, fmt.Errorf("the digest of the %v hash has %d bytes, not %d", c.kind, len(digest), sha512.Size)
	case len(digest) < digestMinBytes || len(digest) > digestMaxBytes:
		return hash{}, fmt.Errorf("the digest of the %v hash has %d bytes, not %d to %d", c.kind, len(digest), digestMinBytes, digestMaxBytes)
	}
	return hash{cost: c, salt: salt, digest: digest}, nil
}

// newHash hashes a password with a fresh salt and the cost that we write.
func newHash(kind Kind, password []byte) (hash, error) {
	h := hash{cost: cost{kind: kind}}
	switch kind {
	case Argon2id:
		h.cost = cost{kind: kind, passes: argon2Passes, memoryKiB: argon2MemoryKiB, lanes: argon2Lanes}
		h.salt, h.digest = make([]byte, argon2SaltBytes), make([]byte, argon2DigestBytes)
	case PBKDF2:
		h.cost.passes = pbkdf2Iterations
		h.salt, h.digest = make([]byte, pbkdf2SaltBytes), make([]byte, sha512.Size)
	default:
		return hash{}, fmt.Errorf("hash with %v: only argon2id and sha512-pbkdf2 are written", kind)
	}
	rand.Read(h.salt)
	h.digest = h.derive(password)
	return h, nil
}

// decoy is a hash of the same cost that no password matches.
func (h hash) decoy() hash {
	d := hash{cost: h.cost, salt: make([]byte, len(h.salt)), digest: make([]byte, len(h.digest))}
	rand.Read(d.salt)
	rand.Read(d.digest)
	return d
}

// matches takes as long for a wrong password as for the right one.
func (h hash) matches(password []byte) bool {
	return subtle.ConstantTimeCompare(h.derive(password), h.digest) == 1
}

func (h hash) derive(password []byte) []byte {
	switch h.cost.kind {
	case Argon2id:
		return argon2.IDKey(password, h.salt, h.cost.passes, h.cost.memoryKiB, h.cost.lanes, uint32(len(h.digest)))
	case PBKDF2:
		key, err := pbkdf2.Key(sha512.New, string(password), h.salt, int(h.cost.passes), len(h.digest))
		if err != nil {
			return nil // Only where Go is told to allow nothing but FIPS 140: such a hash then matches nothing.
		}
		return key
	case SHA512:
		sum := sha512.New()
		sum.Write(password)
		sum.Write(h.salt)
		return sum.Sum(nil)
	}
	panic("credentials: hash of no kind")
}

// String gives the second field of a line.
func (h hash) String() string {
	switch h.cost.kind {
	case Argon2id:
		return argon2idPrefix + fmt.Sprintf(argon2idParameters, h.cost.memoryKiB, h.cost.passes, h.cost.lanes) + "$" +
			base64.RawStdEncoding.EncodeToString(h.salt) + "$" + base64.RawStdEncoding.EncodeToString(h.digest)
	case PBKDF2:
		return pbkdf2Prefix + strconv.Itoa(int(h.cost.passes)) + "$" + encode(h.salt) + "$" + encode(h.digest)
	}
	return sha512Prefix + encode(h.salt) + "$" + encode(h.digest)
}

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
