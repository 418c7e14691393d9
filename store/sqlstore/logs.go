package sqlstore

import (
	"context"

	"github.com/uptrace/bun"

	"github.com/fnkit/fnkit/store"
)

type logRow struct {
	bun.BaseModel `bun:"alias:l"`
	Seq           int64 `bun:",pk,autoincrement"`
	ProjectID     string
	Kind          string
	ID            string
	At            int64
	Stream        string
	Data          []byte
}

// AppendLogs implements store.Logs.
func (s *Store) AppendLogs(ctx context.Context, ref store.LogRef, chunks []store.LogChunk) error {
	if len(chunks) == 0 {
		return nil
	}
	rows := make([]logRow, len(chunks))
	for i, c := range chunks {
		rows[i] = logRow{ProjectID: ref.Project, Kind: string(ref.Kind), ID: ref.ID, At: millis(c.At), Stream: clean(c.Stream), Data: append([]byte{}, c.Data...)}
	}
	insert := func(ctx context.Context, r records) error {
		_, err := r.w.NewInsert().Model(&rows).ModelTableExpr("?", s.table("logs")).Returning("NULL").Exec(ctx)
		return err
	}
	if s.dialect.lockLog == "" {
		return failed("append logs", insert(ctx, s.records))
	}
	return failed("append logs", s.atomic(ctx, func(ctx context.Context, r records) error {
		if _, err := r.w.ExecContext(ctx, s.dialect.lockLog, s.prefix+ref.Project+"/"+string(ref.Kind)+"/"+ref.ID); err != nil {
			return err
		}
		return insert(ctx, r)
	}))
}

// ReadLogs implements store.Logs.
func (s *Store) ReadLogs(ctx context.Context, ref store.LogRef, after int64, limit int) ([]store.LogChunk, error) {
	var rows []logRow
	err := s.r.NewSelect().Model(&rows).ModelTableExpr("? AS l", s.table("logs")).
		Where("l.project_id = ? AND l.kind = ? AND l.id = ? AND l.seq > ?", ref.Project, string(ref.Kind), ref.ID, after).
		OrderExpr("l.seq").Limit(int64(limit)).Scan(ctx)
	if err != nil {
		return nil, failed("read logs", err)
	}
	return convert(rows, func(r *logRow) store.LogChunk {
		return store.LogChunk{Seq: r.Seq, At: moment(r.At), Stream: r.Stream, Data: r.Data}
	}), nil
}

// DeleteLogs implements store.Logs.
func (s *Store) DeleteLogs(ctx context.Context, ref store.LogRef) error {
	return s.records.deleteLogs(ctx, ref)
}

func (r records) deleteLogs(ctx context.Context, ref store.LogRef) error {
	_, err := r.w.ExecContext(ctx, "DELETE FROM ? WHERE project_id = ? AND kind = ? AND id = ?", r.s.table("logs"), ref.Project, string(ref.Kind), ref.ID)
	return failed("delete logs", err)
}
