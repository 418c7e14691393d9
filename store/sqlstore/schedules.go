package sqlstore

import (
	"context"
	"fmt"
	"time"

	"github.com/fnkit/fnkit/store"
)

// DueSchedules implements store.Schedules.
func (r records) DueSchedules(ctx context.Context, now time.Time, limit int) ([]store.Function, error) {
	var rows []functionRow
	// Not prepared: a planner that does not know the time takes a third of all for due.
	err := r.r.NewSelect().Model(&rows).ModelTableExpr("? AS f", r.s.table("functions")).
		Where("f.next_run_at <= ?", millis(now)).OrderExpr("f.next_run_at, f.seq").Limit(int64(limit)).Scan(ctx)
	if err != nil {
		return nil, failed("due schedules", err)
	}
	return convert(rows, (*functionRow).record), nil
}

// AdvanceSchedule implements store.Schedules.
func (r records) AdvanceSchedule(ctx context.Context, project, id string, due, last, next time.Time) error {
	n, err := r.exec(ctx, r.s.advance, millis(last), nullable(millis(next)), project, id, millis(due))
	if err == nil && n == 0 {
		return store.ErrConflict
	}
	return failed("advance schedule", err)
}

// advance is the statement of AdvanceSchedule.
func advance(prefix string, d *dialect) string {
	return d.numbered(fmt.Sprintf(`UPDATE "%sfunctions" SET last_run_at = ?1, next_run_at = ?2 WHERE project_id = ?3 AND id = ?4 AND next_run_at = ?5`, prefix))
}

// NextSchedule implements store.Schedules.
func (r records) NextSchedule(ctx context.Context) (time.Time, bool, error) {
	var at []int64
	// Not min(), for which a planner may read them all.
	err := r.look(ctx, &at, fmt.Sprintf(`SELECT next_run_at FROM "%sfunctions" WHERE next_run_at IS NOT NULL ORDER BY next_run_at LIMIT 1`, r.s.prefix))
	if err != nil || len(at) == 0 {
		return time.Time{}, false, failed("next schedule", err)
	}
	return moment(at[0]), true, nil
}
