package sqlstore

import (
	"context"
	"database/sql"
	"time"

	"github.com/fnkit/fnkit/store"
)

// DueSchedules implements store.Schedules.
func (r records) DueSchedules(ctx context.Context, now time.Time, limit int) ([]store.Function, error) {
	var rows []functionRow
	err := r.r.NewSelect().Model(&rows).ModelTableExpr("? AS f", r.s.table("functions")).
		Where("f.next_run_at <= ?", millis(now)).OrderExpr("f.next_run_at, f.seq").Limit(int64(limit)).Scan(ctx)
	if err != nil {
		return nil, failed("due schedules", err)
	}
	return convert(rows, (*functionRow).record), nil
}

// AdvanceSchedule implements store.Schedules.
func (r records) AdvanceSchedule(ctx context.Context, project, id string, due, last, next time.Time) error {
	res, err := r.w.ExecContext(ctx, "UPDATE ? SET last_run_at = ?, next_run_at = ? WHERE project_id = ? AND id = ? AND next_run_at = ?",
		r.s.table("functions"), millis(last), sql.NullInt64{Int64: millis(next), Valid: !next.IsZero()}, project, id, millis(due))
	if err != nil {
		return failed("advance schedule", err)
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 {
		return store.ErrConflict
	}
	return failed("advance schedule", err)
}

// NextSchedule implements store.Schedules.
func (r records) NextSchedule(ctx context.Context) (time.Time, bool, error) {
	var at []int64
	// Not min(), for which a planner may read them all.
	err := r.r.NewRaw("SELECT next_run_at FROM ? WHERE next_run_at IS NOT NULL ORDER BY next_run_at LIMIT 1", r.s.table("functions")).Scan(ctx, &at)
	if err != nil || len(at) == 0 {
		return time.Time{}, false, failed("next schedule", err)
	}
	return moment(at[0]), true, nil
}
