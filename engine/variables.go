package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/fnkit/fnkit/internal/ids"
	"github.com/fnkit/fnkit/store"
)

// CreateVariable adds a variable to a function; the next call sees it.
// Errors: general_argument_invalid, function_not_found, variable_already_exists.
func (p *Project) CreateVariable(ctx context.Context, by Actor, function, key, value string) (Variable, error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsWrite); err != nil {
		return Variable{}, err
	}
	if err := firstBroken([]rule{{"key", CheckKey(key)}, {"value", CheckText(value, 0, MaxValue)}}); err != nil {
		return Variable{}, err
	}
	now := p.e.now()
	v := Variable{Project: p.id, ID: ids.New(now), FunctionID: function, CreatedAt: now, UpdatedAt: now, Key: key, Value: value}
	err := p.e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) error {
		if _, err := tx.GetFunction(ctx, p.id, function); err != nil {
			return err
		}
		have, err := tx.ListVariables(ctx, p.id, []string{function}, p.e.cfg.Limits.Variables)
		if err != nil {
			return err
		}
		if len(have) >= p.e.cfg.Limits.Variables {
			return Errorf(TypeArgument, "The function has its limit of %d variables.", p.e.cfg.Limits.Variables)
		}
		if err := p.fits(have, v); err != nil {
			return err
		}
		if _, err := tx.CreateVariable(ctx, p.sealed(v)); err != nil {
			return err
		}
		return stale(ctx, tx, p.id, function)
	})
	if errors.Is(err, store.ErrExists) {
		return Variable{}, Errorf(TypeVariableExists, "")
	}
	if err != nil {
		return Variable{}, fail(err, TypeFunction)
	}
	p.e.forget(p.id, function)
	p.emit(ctx, by, "functions."+function+".variables."+v.ID+".create", nil) // not its value: nobody else learns that
	return v, nil
}

// GetVariable returns a variable. Errors: function_not_found, variable_not_found.
func (p *Project) GetVariable(ctx context.Context, by Actor, function, id string) (Variable, error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsRead); err != nil {
		return Variable{}, err
	}
	if _, err := p.e.store.GetFunction(ctx, p.id, function); err != nil {
		return Variable{}, fail(err, TypeFunction)
	}
	v, err := p.e.store.GetVariable(ctx, p.id, function, id)
	if err != nil {
		return Variable{}, fail(err, TypeVariable)
	}
	return p.opened(v)
}

// ListVariables returns the variables of a function in order of creation.
// Error: function_not_found.
func (p *Project) ListVariables(ctx context.Context, by Actor, function string) (List[Variable], error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsRead); err != nil {
		return List[Variable]{}, err
	}
	if _, err := p.e.store.GetFunction(ctx, p.id, function); err != nil {
		return List[Variable]{}, fail(err, TypeFunction)
	}
	all, err := p.VariablesOf(ctx, by, function)
	return List[Variable]{len(all[function]), all[function]}, err
}

// VariablesOf returns the variables of several functions, by function id. It
// serves whoever may read or write functions.
func (p *Project) VariablesOf(ctx context.Context, by Actor, functions ...string) (map[string][]Variable, error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsRead, ScopeFunctionsWrite); err != nil {
		return nil, err
	}
	rows, err := p.e.store.ListVariables(ctx, p.id, functions, p.e.cfg.Limits.Variables*max(1, len(functions)))
	if err != nil {
		return nil, fail(err, "")
	}
	out := map[string][]Variable{}
	for _, row := range rows {
		v, err := p.opened(row)
		if err != nil {
			return nil, err
		}
		out[v.FunctionID] = append(out[v.FunctionID], v)
	}
	return out, nil
}

// UpdateVariable changes a variable's key and, unless value is nil, its value;
// the next call sees it. Errors: general_argument_invalid, function_not_found,
// variable_not_found, variable_already_exists.
func (p *Project) UpdateVariable(ctx context.Context, by Actor, function, id, key string, value *string) (Variable, error) {
	if _, err := p.enter(ctx, by, ScopeFunctionsWrite); err != nil {
		return Variable{}, err
	}
	rules := []rule{{"key", CheckKey(key)}}
	if value != nil {
		rules = append(rules, rule{"value", CheckText(*value, 0, MaxValue)})
	}
	if err := firstBroken(rules); err != nil {
		return Variable{}, err
	}
	var v Variable
	err := p.e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) error {
		if _, err := tx.GetFunction(ctx, p.id, function); err != nil {
			return fail(err, TypeFunction)
		}
		row, err := tx.GetVariable(ctx, p.id, function, id)
		if err != nil {
			return err
		}
		if v, err = p.opened(row); err != nil {
			return err
		}
		old := v
		v.Key = key
		v.Value = *cmp.Or(value, &v.Value)
		if v == old {
			return nil
		}
		v.UpdatedAt = p.e.now()
		have, err := tx.ListVariables(ctx, p.id, []string{function}, p.e.cfg.Limits.Variables)
		if err != nil {
			return err
		}
		if err := p.fits(have, v); err != nil {
			return err
		}
		if err := tx.UpdateVariable(ctx, p.sealed(v)); err != nil {
			return err
		}
		return stale(ctx, tx, p.id, function)
	})
	if errors.Is(err, store.ErrExists) {
		return Variable{}, Errorf(TypeVariableExists, "")
	}
	if err != nil {
		return Variable{}, fail(err, TypeVariable)
	}
	p.e.forget(p.id, function)
	p.emit(ctx, by, "functions."+function+".variables."+v.ID+".update", nil) // not its value: nobody else learns that
	return v, nil
}

// DeleteVariable removes a variable; the next call does not see it any more.
// Errors: function_not_found, variable_not_found.
func (p *Project) DeleteVariable(ctx context.Context, by Actor, function, id string) error {
	if _, err := p.enter(ctx, by, ScopeFunctionsWrite); err != nil {
		return err
	}
	err := p.e.store.InTx(ctx, func(ctx context.Context, tx store.Tx) error {
		if _, err := tx.GetFunction(ctx, p.id, function); err != nil {
			return fail(err, TypeFunction)
		}
		if err := tx.DeleteVariable(ctx, p.id, function, id); err != nil {
			return err
		}
		return stale(ctx, tx, p.id, function)
	})
	if err != nil {
		return fail(err, TypeVariable)
	}
	p.e.forget(p.id, function)
	p.emit(ctx, by, "functions."+function+".variables."+id+".delete", nil) // not its value: nobody else learns that
	return nil
}

// fits refuses a variable with which those of its function would be larger
// together than an instance can be given.
func (p *Project) fits(have []store.Variable, v Variable) error {
	size, limit := jsonSize(v.Key, v.Value), p.e.cfg.Limits.Environment
	for _, row := range have {
		if row.ID == v.ID {
			continue
		}
		other, err := p.opened(row)
		if err != nil {
			return err
		}
		size += jsonSize(other.Key, other.Value)
	}
	if size > limit {
		return InvalidParam("value", fmt.Errorf("The variables of the function must not be larger than %d bytes together", limit))
	}
	return nil
}

// jsonSize is how many bytes a variable takes in JSON.
func jsonSize(key, value string) int {
	text, _ := json.Marshal(map[string]string{key: value}) // strings never fail
	return len(text)
}

// stale marks that a function's settings changed since its deployment was made.
func stale(ctx context.Context, tx store.Tx, project, function string) error {
	_, err := tx.UpdateFunction(ctx, project, function, func(f *Function) error {
		f.Live = false
		return nil
	})
	return err
}

func (p *Project) sealed(v Variable) store.Variable {
	return store.Variable{
		Project: v.Project, ID: v.ID, FunctionID: v.FunctionID, CreatedAt: v.CreatedAt, UpdatedAt: v.UpdatedAt, Key: v.Key,
		Sealed: p.e.secrets.ring.Seal([]byte(v.Value), variableIdentity(v.Project, v.FunctionID, v.ID)),
	}
}

func (p *Project) opened(v store.Variable) (Variable, error) {
	plain, err := p.e.secrets.ring.Open(v.Sealed, variableIdentity(v.Project, v.FunctionID, v.ID))
	if err != nil {
		return Variable{}, fmt.Errorf("variable %s: %w", v.ID, err)
	}
	return Variable{
		Project: v.Project, ID: v.ID, FunctionID: v.FunctionID, CreatedAt: v.CreatedAt, UpdatedAt: v.UpdatedAt,
		Key: v.Key, Value: string(plain),
	}, nil
}
