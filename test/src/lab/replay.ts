/** Shows the tests of a suite that runs elsewhere as parts of a test here. */
import type { TestContext } from "node:test";
import { parseTestEnd } from "./events.js";
import type { TestEnd } from "./events.js";

export class Replay {
  readonly #context: TestContext;
  #last: Promise<unknown> = Promise.resolve();
  #count = 0;

  constructor(context: TestContext) {
    this.#context = context;
  }

  /** Takes one line that the suite has printed. */
  line(text: string): void {
    const end = parseTestEnd(text);
    if (end === undefined) {
      if (text.trim() !== "") this.#context.diagnostic(text);
      return;
    }
    this.#count += 1;
    this.#last = this.#last.then(async () => this.#show(end));
  }

  /**
   * Waits until all are shown.
   * @throws when the suite ended badly without a test that says so, or had no test at all
   */
  async finish(exitCode: number | null, stderr: string): Promise<void> {
    await this.#last;
    if (this.#count === 0) throw new Error(`no test was run (exit code ${exitCode})\n${stderr}`);
    // 1 is what failed tests give, each of which is shown.
    if (exitCode !== 0 && exitCode !== 1)
      throw new Error(`the suite ended with exit code ${exitCode}\n${stderr}`);
  }

  async #show({ path, outcome, ms, text = "" }: TestEnd): Promise<void> {
    const name = `${path.join(" › ")}${ms >= 1000 ? ` (${(ms / 1000).toFixed(1)} s there)` : ""}`;
    await this.#context.test(name, { ...(outcome === "skipped" && { skip: text }) }, () => {
      if (outcome !== "failed") return;
      const error = new Error(text.split("\n")[0]);
      error.stack = text;
      throw error;
    });
  }
}
