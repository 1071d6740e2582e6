package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// fault is a reason why tokens are refused, with the remedy, for the log. Clients learn only that the token is refused.
type fault struct {
	level slog.Level
	text  string
}

func (f *fault) Error() string { return f.text }

const where = "; see docs/tokens-and-issuers.md"

// Faults that anybody can cause, and those of everyday, have the level info.
var (
	faultMalformed = &fault{slog.LevelInfo, "a token is refused: it is no JWT, which is three parts in base64url, the first two of them JSON"}
	faultEncrypted = &fault{slog.LevelWarn, "a token is refused: it is encrypted (JWE), for its issuer alone to read; have a signed one made" + where}
	faultLong      = &fault{slog.LevelInfo, fmt.Sprintf("a token is refused: it is longer than %d bytes; leave out claims", maxToken)}
	faultURL       = &fault{slog.LevelInfo, "a token is refused: it is in the URL, which logs keep; send it in the Authorization header"}
	faultHeader    = &fault{slog.LevelInfo, "a token is refused: the Authorization header is malformed or repeated; send one of the form 'Bearer TOKEN'"}
	faultAlgorithm = &fault{slog.LevelWarn, "a token is refused: its alg is not configured; HS256 needs JWT_SECRET, RS256 and ES256 need JWT_JWKS_URL, and others are not supported"}
	faultCritical  = &fault{slog.LevelWarn, "a token is refused: it has the header crit, which is not supported"}

	faultKID         = &fault{slog.LevelInfo, fmt.Sprintf("a token is refused: its kid is no text, empty or longer than %d bytes", jwksMaxKID)}
	faultUnknownKID  = &fault{slog.LevelWarn, "a token is refused: JWT_JWKS_URL has no key of its kid and alg; set it to where the issuer of your users' tokens publishes its keys, and JWT_SECRET if they are HS256"}
	faultTooManyKeys = &fault{slog.LevelWarn, fmt.Sprintf("a token is refused: it has no kid, and JWT_JWKS_URL more than %d keys that it might be signed with; have the issuer name the key", jwksMaxTries)}
	faultFirstKey    = &fault{slog.LevelWarn, "a token's signature is refused, and none has been valid yet: set JWT_SECRET, or JWT_JWKS_URL, to the key with which your application signs its users' tokens"}
	faultIssuersKey  = &fault{slog.LevelWarn, "a token is refused: its signature is wrong, though others' were right, and JWT_JWKS_URL has just been asked again; have its issuer publish there the key that it signs with"}
	faultSignature   = &fault{slog.LevelWarn, "a token is refused: its signature is wrong, though others' were right; if its issuer has a new key, set JWT_SECRET to that and JWT_SECRET_PREVIOUS to the one before"}

	faultIssuer   = &fault{slog.LevelWarn, "a token is refused: its iss is not JWT_ISSUER; set that to what your issuer writes, to the last slash" + where}
	faultAudience = &fault{slog.LevelWarn, "a token is refused: it is not for JWT_AUDIENCE; set that to what your issuer writes there, or JWT_AUDIENCE_CLAIM to the claim that says it (aud, client_id, azp)" + where}
	faultNotYet   = &fault{slog.LevelWarn, "a token is refused: its nbf is more than a minute ahead; set this machine's clock and its issuer's"}
	faultExpired  = &fault{slog.LevelInfo, "a token is refused: it has expired; its client must ask for a new one in time"}
	faultNoExpiry = &fault{slog.LevelWarn, "a token is refused: it has no exp; have its issuer set one, an hour ahead, say"}
	faultClaim    = &fault{slog.LevelWarn, "a token is refused: a claim is not what it must be"}
	faultUser     = &fault{slog.LevelWarn, "a token is refused: its user is no text; set JWT_USER_CLAIM to the claim that names the user, with which a whole number counts, too"}
	faultNobody   = &fault{slog.LevelWarn, "a token is valid and names nobody, so nothing is shown to it: set JWT_USER_CLAIM to the claim that has the user_id of your table" + where}
)

// requestFaults maps the answers to requests whose token was not even parsed to their faults.
var requestFaults = map[*apiError]*fault{errInvalidToken: faultLong, errTokenInURL: faultURL, errMalformedAuth: faultHeader}

// faultFor finds the reason why the parser refused a token. It looks at the claims only if the signature was right: otherwise they are not
// the issuer's.
func (v *verifier) faultFor(err error, token string, parsed *jwt.Token, c *claims) *fault {
	known, isFault := errors.AsType[*fault](err)
	wrong, isClaim := errors.AsType[*wrongClaim](err)
	missing := errors.Is(err, jwt.ErrTokenRequiredClaimMissing)
	audience, _ := c.GetAudience() // an error is a wrongClaim
	switch {
	case strings.Count(token, ".") == 4:
		return faultEncrypted
	case errors.Is(err, jwt.ErrTokenMalformed):
		return faultMalformed
	case isFault:
		return known
	case !v.configured(parsed):
		return faultAlgorithm
	case errors.Is(err, jwt.ErrTokenSignatureInvalid) && !v.accepted.Load():
		return faultFirstKey
	case errors.Is(err, jwt.ErrTokenSignatureInvalid) && parsed.Method.Alg() != "HS256":
		return faultIssuersKey
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return faultSignature
	case isClaim && wrong.claim == v.cfg.userClaim():
		return faultUser
	case isClaim:
		return faultClaim
	case errors.Is(err, jwt.ErrTokenInvalidIssuer), missing && v.cfg.Issuer != "" && c.kind("iss") == "missing":
		return faultIssuer
	case errors.Is(err, jwt.ErrTokenInvalidAudience), missing && v.cfg.Audience != "" && strings.Join(audience, "") == "":
		return faultAudience
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return faultNotYet
	case errors.Is(err, jwt.ErrTokenExpired):
		return faultExpired
	case missing && c.kind("exp") == "missing":
		return faultNoExpiry
	}
	return faultClaim
}

// configured reports whether there is a key for the algorithm that a token names.
func (v *verifier) configured(token *jwt.Token) bool {
	if token == nil || token.Method == nil {
		return false
	}
	switch token.Method.Alg() {
	case "HS256":
		return len(v.trusted.Load().secrets) > 0
	case "RS256", "ES256":
		return v.keys != nil
	}
	return false
}

// logFault logs a fault. Of the claims it shows only the values of iss and the audience, which name no user and are no secret, and only
// after the signature was right.
func (v *verifier) logFault(ctx context.Context, f *fault, err error, parsed *jwt.Token, c *claims) {
	var attrs []any
	wrong, isClaim := errors.AsType[*wrongClaim](err)
	switch {
	case f == faultIssuer:
		iss, _ := c.GetIssuer()
		attrs = []any{"want", v.cfg.Issuer, "got", quoteShort(iss)}
	case f == faultAudience:
		audience, _ := c.GetAudience()
		attrs = []any{"claim", v.cfg.audienceClaim(), "want", v.cfg.Audience, "got", quoteShort(strings.Join(audience, " "))}
	case f == faultAlgorithm && parsed != nil && parsed.Method != nil: // an algorithm that the library knows
		attrs = []any{"alg", parsed.Method.Alg()}
	case isClaim:
		attrs = []any{"claim", wrong.claim, "is", wrong.kind}
	case f == faultNobody:
		attrs = []any{"claim", v.cfg.userClaim(), "is", c.kind(v.cfg.userClaim())}
	}
	v.faults.log(ctx, f, attrs...)
}

// faultInterval is the least time between two records of the same fault.
const faultInterval = time.Minute

// faultLog logs each fault at most once in faultInterval, with the number of times that it was not logged. Safe for concurrent use.
type faultLog struct {
	logger *slog.Logger

	mu     sync.Mutex
	faults map[*fault]*faultCount
}

type faultCount struct {
	next   time.Time // when the fault may be logged again
	silent int       // times that it was not logged since the last record
}

func (l *faultLog) log(ctx context.Context, f *fault, attrs ...any) {
	l.mu.Lock()
	count := l.faults[f]
	if count == nil {
		if l.faults == nil {
			l.faults = make(map[*fault]*faultCount)
		}
		count = new(faultCount)
		l.faults[f] = count
	}
	if now := time.Now(); now.Before(count.next) {
		count.silent++
		l.mu.Unlock()
		return
	} else {
		count.next = now.Add(faultInterval)
	}
	if count.silent > 0 {
		attrs = append(attrs, "not_logged", count.silent)
	}
	count.silent = 0
	l.mu.Unlock()
	l.logger.Log(ctx, f.level, f.text, attrs...)
}
