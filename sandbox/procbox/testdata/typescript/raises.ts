throw new Error('raised at load');
