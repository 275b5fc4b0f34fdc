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

// Runs `work` as a program: it gets what a test would, what it began ends in reverse order, and it says the exit code.
export async function asProgram(work, close) {
  const ends = [];
  let code = 0;
  try {
    code = (await work({ after: (end) => ends.push(end) })) ?? 0;
  } catch (error) {
    console.error(error);
    code = 1;
  }
  for (const end of ends.reverse()) await Promise.resolve().then(end).catch((error) => { console.error(error); code = 1; });
  await close();
  process.exit(code);
}
