package probe

import (
	"encoding/json"
	"errors"
	"io/fs"
	"syscall"
)

// Fact is a value, or the reason why it is not known. As JSON it is the value itself, or {"unknown": "reason"}.
type Fact[T any] struct {
	Value   T
	Unknown string // why there is no Value; empty when there is one
}

// Known says that there is a value.
func (f Fact[T]) Known() bool { return f.Unknown == "" }

// unknownJSON is how a Fact without a value is written.
type unknownJSON struct {
	Unknown string `json:"unknown"`
}

// MarshalJSON writes the value, or an object with the reason. A list of nothing is [], so that programs can walk it.
func (f Fact[T]) MarshalJSON() ([]byte, error) {
	if !f.Known() {
		return json.Marshal(unknownJSON{f.Unknown})
	}
	data, err := json.Marshal(f.Value)
	if string(data) == "null" {
		return []byte("[]"), err
	}
	return data, err
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (f *Fact[T]) UnmarshalJSON(data []byte) error {
	var u unknownJSON
	if json.Unmarshal(data, &u) == nil && u.Unknown != "" {
		*f = Fact[T]{Unknown: u.Unknown}
		return nil
	}
	*f = Fact[T]{}
	return json.Unmarshal(data, &f.Value)
}

func known[T any](value T) Fact[T] { return Fact[T]{Value: value} }

func unknown[T any](why string) Fact[T] { return Fact[T]{Unknown: why} }

// factOf is the value, or unknown for the reason of the error.
func factOf[T any](value T, err error) Fact[T] {
	if err != nil {
		return unknown[T](why(err))
	}
	return known(value)
}

// why puts an error into the words of a doctor.
func why(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "not permitted to this user"
	case errors.Is(err, syscall.EOPNOTSUPP):
		return "the driver does not tell"
	case errors.Is(err, fs.ErrNotExist):
		return "this kernel does not tell"
	}
	return err.Error()
}
