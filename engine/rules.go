package engine

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/fnkit/fnkit/internal/cron"
)

// The rules of parameters. Each Check function returns nil or an error whose
// text completes "Invalid `x` param: ". Use cases apply them; the wire applies
// them too, so that the first wrong parameter is the one reported.

// Limits of parameters, in characters or items.
const (
	MaxID         = 36
	MaxName       = 128
	MaxRoles      = 100
	MaxRole       = 128
	MaxEvents     = 100
	MaxEvent      = 256
	MaxScopes     = 100
	MaxSchedule   = 100
	MaxTimeZone   = 64
	MaxEntrypoint = 1028
	MaxCommands   = 8192
	MaxProvider   = 128
	MaxKey        = 255
	MaxValue      = 8192
	MaxPath       = 2048
	MaxHeaders    = 100
	MaxHeaderSize = 16384 // of all names and values together, exclusive
	MaxQueries    = 100
	MaxQuery      = 4096
	MaxSearch     = 256

	MaxIdempotencyKey = 255
)

var (
	customID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,35}$`)
	labelID  = regexp.MustCompile(`^[A-Za-z0-9]{1,36}$`)
)

// reservedIDs would be shadowed by literal routes.
var reservedIDs = []string{"runtimes", "specifications", "usage", "templates"}

// CheckID is the rule of an id in a path or a cursor.
func CheckID(id string) error {
	if customID.MatchString(id) {
		return nil
	}
	return errors.New("UID must contain at most 36 chars. Valid chars are a-z, A-Z, 0-9, and underscore. Can't start with a leading underscore")
}

// CheckNewID is the rule of an id that a caller chooses: an id, or "unique()".
func CheckNewID(id string) error {
	if id == UniqueID || customID.MatchString(id) && !slices.Contains(reservedIDs, id) {
		return nil
	}
	return errors.New("Parameter must contain at most 36 chars. Valid chars are a-z, A-Z, 0-9, period, hyphen, and underscore. Can't start with a special char")
}

var projectID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// CheckProject is the rule of a project's id: it becomes part of the names of blobs.
func CheckProject(id string) error {
	if projectID.MatchString(id) {
		return nil
	}
	return errors.New("Project IDs contain at most 64 chars. Valid chars are a-z, A-Z, 0-9, period, hyphen, and underscore. Can't start with a special char")
}

// CheckText is the rule of a text of min to max characters.
func CheckText(s string, min, max int) error {
	n := utf8.RuneCountInString(s)
	if n >= min && n <= max && utf8.ValidString(s) && !strings.ContainsRune(s, 0) {
		return nil
	}
	if min > 0 {
		return fmt.Errorf("Value must be a valid string and at least %d chars and no longer than %d chars", min, max)
	}
	return fmt.Errorf("Value must be a valid string and no longer than %d chars", max)
}

// CheckEnum is the rule of a value that is one of a list.
func CheckEnum(s string, list []string) error {
	if slices.Contains(list, s) {
		return nil
	}
	return fmt.Errorf("Value must be one of (%s)", strings.Join(list, ", "))
}

// CheckRange is the rule of an integer between min and max.
func CheckRange(n, min, max int) error {
	if n >= min && n <= max {
		return nil
	}
	return fmt.Errorf("Value must be a valid range between %s and %s", thousands(min), thousands(max))
}

// thousands writes a number with separators.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// CheckKey is the rule of a variable's name.
func CheckKey(key string) error {
	if err := CheckText(key, 1, MaxKey); err != nil {
		return err
	}
	if strings.Contains(key, "=") {
		return errors.New(`Value must not contain "="`)
	}
	return nil
}

// CheckSchedule is the rule of a cron expression; empty means none.
func CheckSchedule(s string) error {
	if s == "" {
		return nil
	}
	if _, err := cron.Parse(s); err != nil || len(s) > MaxSchedule {
		return errors.New("String must be a valid cron expression")
	}
	return nil
}

// CheckTimeZone is the rule of the name of a time zone; empty means UTC.
func CheckTimeZone(name string) error {
	if _, err := location(name); err != nil || len(name) > MaxTimeZone {
		return errors.New("Value must be a name of the IANA time zone database, such as Europe/Berlin")
	}
	return nil
}

// CheckCatchUp is the rule of a catch-up policy; empty means the default.
func CheckCatchUp(c CatchUp) error {
	return CheckEnum(string(cmp.Or(c, CatchUpOnce)), []string{string(CatchUpOnce), string(CatchUpSkip), string(CatchUpAll)})
}

// CheckScopes is the rule of the scopes handed to executions.
func CheckScopes(scopes []string) error {
	for _, s := range scopes {
		if !slices.Contains(scopeCatalogue, s) {
			return listError(MaxScopes, CheckEnum(s, scopeCatalogue))
		}
	}
	if len(scopes) > MaxScopes {
		return listError(MaxScopes, CheckEnum("", scopeCatalogue))
	}
	return nil
}

// listError is the text of a rule for each element of a list.
func listError(max int, element error) error {
	return fmt.Errorf("Value must a valid array no longer than %d items and %w", max, element)
}

// scopeCatalogue are the scopes a function's key may have.
var scopeCatalogue = func() []string {
	scopes := []string{"sessions.write"}
	for _, r := range strings.Fields("users teams databases collections attributes indexes documents files buckets functions execution providers messages topics subscribers targets rules migrations vcs") {
		scopes = append(scopes, r+".read", r+".write")
	}
	return append(scopes, "locale.read", "avatars.read", "health.read", "assistant.read")
}()

// CheckHeaders is the rule of the headers of an execution.
func CheckHeaders(headers []Header) error {
	size := 0
	for _, h := range headers {
		size += len(h.Name) + len(h.Value)
		if !headerName.MatchString(h.Name) || digits.MatchString(h.Name) || strings.HasPrefix(strings.ToLower(h.Name), "x-appwrite-") || strings.ContainsAny(h.Value, "\r\n\x00") {
			return errHeaders
		}
	}
	if len(headers) > MaxHeaders || size >= MaxHeaderSize {
		return errHeaders
	}
	return nil
}

var (
	headerName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$`)
	digits     = regexp.MustCompile(`^[0-9]+$`)
	errHeaders = errors.New(`Invalid headers: Alphanumeric characters or hyphens only, cannot start with "x-appwrite", maximum 100 keys, and total size 16384.`)
)

// executionMethods are the methods an execution may have.
var executionMethods = []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// CheckMethod is the rule of an execution's method.
func CheckMethod(m string) error { return CheckEnum(m, executionMethods) }
