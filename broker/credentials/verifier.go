package credentials

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/xdg-go/scram"
)

// scramMechanism is the scheme of RFC 5803 and the authentication method of MQTT 5.0's CONNECT.
const scramMechanism = "SCRAM-SHA-256"

// The client does the iterations, once per password: RFC 7677 asks for 4,096 at least, and a stolen file is only as
// hard to crack as the easier of hash and verifier. A hundred thousand takes a laptop about 30 ms.
const (
	scramIterations    = 100_000
	scramIterationsMin = 4096
	scramIterationsMax = 2_000_000
	scramSaltBytes     = 16
)

// verifier is what a SCRAM server stores instead of the password.
type verifier = scram.StoredCredentials

// newVerifier derives what the server stores. It fails where SASLprep forbids the name or the password, since no
// client could ever authenticate with them.
func newVerifier(user string, password []byte) (verifier, error) {
	if _, err := prepare(user); err != nil {
		return verifier{}, fmt.Errorf("user name %q cannot be used with SCRAM (SASLprep): %w", user, err)
	}
	client, err := scram.SHA256.NewClient(user, string(password), "")
	if err != nil {
		return verifier{}, fmt.Errorf("the password cannot be used with SCRAM: %w", err)
	}
	salt := make([]byte, scramSaltBytes)
	rand.Read(salt)
	return client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: scramIterations})
}

// parseVerifier reads the third field of a line.
func parseVerifier(field string) (verifier, error) {
	mechanism, rest, _ := strings.Cut(field, "$")
	factors, keys, _ := strings.Cut(rest, "$")
	count, saltText, saltFound := strings.Cut(factors, ":")
	storedText, serverText, keysFound := strings.Cut(keys, ":")
	if mechanism != scramMechanism || !saltFound || !keysFound {
		return verifier{}, errors.New("the field behind the hash is not SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY")
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < scramIterationsMin || n > scramIterationsMax {
		return verifier{}, fmt.Errorf("the SCRAM iterations %q are not %d to %d", count, scramIterationsMin, scramIterationsMax)
	}
	base64Strict := base64.StdEncoding.Strict()
	salt, saltErr := base64Strict.DecodeString(saltText)
	stored, storedErr := base64Strict.DecodeString(storedText)
	server, serverErr := base64Strict.DecodeString(serverText)
	if err := errors.Join(saltErr, storedErr, serverErr); err != nil {
		return verifier{}, errors.New("the SCRAM salt or a key is not base64")
	}
	if len(salt) < saltMinBytes || len(salt) > saltMaxBytes || len(stored) != sha256.Size || len(server) != sha256.Size {
		return verifier{}, fmt.Errorf("the SCRAM salt has not %d to %d bytes, or a key not %d", saltMinBytes, saltMaxBytes, sha256.Size)
	}
	return verifier{KeyFactors: scram.KeyFactors{Salt: string(salt), Iters: n}, StoredKey: stored, ServerKey: server}, nil
}

func formatVerifier(v verifier) string {
	return scramMechanism + "$" + strconv.Itoa(v.Iters) + ":" + encode([]byte(v.Salt)) + "$" + encode(v.StoredKey) + ":" + encode(v.ServerKey)
}

// randomVerifier is of no password; a file without verifiers has its decoys' shape and key from it.
func randomVerifier() verifier {
	salt, server := make([]byte, scramSaltBytes), make([]byte, sha256.Size)
	rand.Read(salt)
	rand.Read(server)
	return verifier{KeyFactors: scram.KeyFactors{Salt: string(salt), Iters: scramIterations}, ServerKey: server}
}

// decoys makes up a verifier for names that have none, so that asking for them looks the same as for a user.
type decoys struct {
	key   []byte // secret: who knows it can tell a decoy's salt from a real one
	shape verifier
}

// newDecoys derives the key from a verifier of the file, whose ServerKey nobody outside knows: a made-up salt then
// stays the same over reloads, restarts and nodes that share the file, as a real one does.
func newDecoys(shape verifier) (decoys, error) {
	key, err := hkdf.Key(sha256.New, shape.ServerKey, nil, "ringmq scram decoys", sha256.Size)
	return decoys{key: key, shape: shape}, err
}

// verifier has a salt of its own for each name, and keys that no password has.
func (d decoys) verifier(preparedName string) verifier {
	salt := append(d.derive("salt", preparedName), d.derive("more salt", preparedName)...) // 64 bytes, the most there is.
	return verifier{
		KeyFactors: scram.KeyFactors{Salt: string(salt[:len(d.shape.Salt)]), Iters: d.shape.Iters},
		StoredKey:  d.derive("stored", preparedName),
		ServerKey:  d.derive("server", preparedName),
	}
}

func (d decoys) derive(purpose, name string) []byte {
	mac := hmac.New(sha256.New, d.key)
	mac.Write([]byte(purpose + ":" + name))
	return mac.Sum(nil)
}
