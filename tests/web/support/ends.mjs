// What a test began ends in reverse order, as it should: the page before the server that it watches.
const stacks = new WeakMap();

export function atEnd(t, end) {
  if (!stacks.has(t)) {
    const stack = [];
    stacks.set(t, stack);
    t.after(async () => {
      const errors = [];
      for (const step of stack.reverse()) await Promise.resolve().then(step).catch((error) => errors.push(error));
      if (errors.length > 0) throw errors[0];
    });
  }
  stacks.get(t).push(end);
}
