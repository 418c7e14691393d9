package sqlstore

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"github.com/fnkit/fnkit/store"
)

type keyRow struct {
	bun.BaseModel `bun:"alias:k"`
	Seq           int64 `bun:",pk,autoincrement"`
	ProjectID     string
	Kind          string
	Name          string
	Value         string
	ExpiresAt     int64
	Answer        []byte
}

func (r *keyRow) record() store.Key {
	return store.Key{Project: r.ProjectID, Kind: store.KeyKind(r.Kind), Name: r.Name, Value: r.Value, ExpiresAt: moment(r.ExpiresAt), Answer: r.Answer}
}

// ClaimKey implements store.Keys.
func (r records) ClaimKey(ctx context.Context, k store.Key, now time.Time) (held store.Key, err error) {
	row := keyRow{ProjectID: k.Project, Kind: string(k.Kind), Name: clean(k.Name), Value: k.Value, ExpiresAt: millis(k.ExpiresAt), Answer: k.Answer}
	err = r.atomic(ctx, func(ctx context.Context, r records) error {
		_, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND kind = ? AND name = ? AND expires_at <= ?",
			r.s.table("keys"), row.ProjectID, row.Kind, row.Name, millis(now))
		if err != nil {
			return err
		}
		res, err := r.w.NewInsert().Model(&row).ModelTableExpr("?", r.s.table("keys")).On("CONFLICT DO NOTHING").Returning("NULL").Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 1 {
			return err
		}
		if held, err = r.GetKey(ctx, k.Project, k.Kind, k.Name); err != nil {
			return err
		}
		return store.ErrExists
	})
	return held, failed("claim key", err)
}

// GetKey implements store.Keys.
func (r records) GetKey(ctx context.Context, project string, kind store.KeyKind, name string) (store.Key, error) {
	var row keyRow
	err := r.r.NewSelect().Model(&row).ModelTableExpr("? AS k", r.s.table("keys")).
		Where("k.project_id = ? AND k.kind = ? AND k.name = ?", project, string(kind), clean(name)).Scan(ctx)
	return row.record(), failed("get key", err)
}

// AnswerKey implements store.Keys.
func (r records) AnswerKey(ctx context.Context, k store.Key) error {
	res, err := r.w.ExecContext(ctx, "UPDATE ? SET answer = ? WHERE project_id = ? AND kind = ? AND name = ? AND value = ?",
		r.s.table("keys"), k.Answer, k.Project, string(k.Kind), clean(k.Name), k.Value)
	if err != nil {
		return failed("answer key", err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 1 {
		return failed("answer key", err)
	}
	return fmt.Errorf("answer key: %w", store.ErrNotFound)
}

// DeleteKey implements store.Keys.
func (r records) DeleteKey(ctx context.Context, k store.Key) error {
	_, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND kind = ? AND name = ? AND value = ?",
		r.s.table("keys"), k.Project, string(k.Kind), clean(k.Name), k.Value)
	return failed("delete key", err)
}

// DeleteKeys implements store.Keys.
func (r records) DeleteKeys(ctx context.Context, now time.Time, limit int) (int, error) {
	res, err := r.w.ExecContext(ctx, "DELETE FROM ?0 WHERE seq IN (SELECT seq FROM ?0 WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
		r.s.table("keys"), millis(now), limit)
	if err != nil {
		return 0, failed("delete keys", err)
	}
	n, err := res.RowsAffected()
	return int(n), failed("delete keys", err)
}
