package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// secret returns what seals variables and payloads: a file that only its owner
// can read. One is made with a new database; with an older one it must be there.
func (o options) secret() ([]byte, error) {
	name := filepath.Join(o.data, "secret")
	info, err := os.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(o.database()); err == nil {
			return nil, fmt.Errorf("%s is missing: restore it, without it the sealed variables in %s are lost", name, o.database())
		}
		return newSecret(name)
	}
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("others can read %s: make it yours alone (chmod 600)", name)
	}
	secret, err := os.ReadFile(name)
	if err == nil && len(secret) < 16 {
		err = fmt.Errorf("%s is too short to be a secret: restore it, or the variables it sealed are lost", name)
	}
	return secret, err
}

// newSecret makes a secret and writes it to a file, which is there only when
// it is whole and on the disk.
func newSecret(name string) ([]byte, error) {
	secret := make([]byte, 32)
	rand.Read(secret)
	temp := name + ".new"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(secret)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(temp))
	}
	return secret, syncDir(filepath.Dir(name))
}

// syncDir makes a new name last. Where a directory cannot be synced, the file
// system sees to it.
func syncDir(name string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
