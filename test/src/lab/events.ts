/** How a suite tells, over a pipe or out of a machine, what its tests came to. */

/** One test that holds no others. */
export interface TestEnd {
  /** From the outermost suite inwards. */
  readonly path: readonly string[];
  readonly outcome: "passed" | "failed" | "skipped";
  readonly ms: number;
  /** Why it was skipped, or how it failed. */
  readonly text?: string;
}

/** Begins a line of them; other lines are what tests print. */
const MARK = "\u001eend ";

export function formatTestEnd(end: TestEnd): string {
  return `${MARK}${JSON.stringify(end)}\n`;
}

export function parseTestEnd(line: string): TestEnd | undefined {
  return line.startsWith(MARK) ? (JSON.parse(line.slice(MARK.length)) as TestEnd) : undefined;
}
