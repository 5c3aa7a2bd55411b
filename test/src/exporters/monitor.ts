/** The monitor of a storage daemon whose server is away. */
import { connect } from "node:net";
import { createInterface } from "node:readline";

/** Runs commands of QMP one after the other; all must succeed. */
export async function tellMonitor(
  path: string,
  commands: readonly (readonly [string, object])[],
): Promise<void> {
  await askMonitor(path, commands);
}

/** As `tellMonitor`. @returns what each was answered */
export async function askMonitor(
  path: string,
  commands: readonly (readonly [string, object])[],
): Promise<unknown[]> {
  const answers: unknown[] = [];
  const socket = connect(path);
  const lines = createInterface({ input: socket });
  const pending = lines[Symbol.asyncIterator]();
  const next = async (): Promise<object> => {
    for (;;) {
      const { value, done } = await pending.next();
      if (done === true) throw new Error(`${path} was closed before it answered`);
      const message = JSON.parse(value) as object;
      if (!("event" in message)) return message;
    }
  };
  try {
    await next();
    for (const [command, args] of [["qmp_capabilities", {}] as const, ...commands]) {
      const answered = next();
      socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
      const answer = await answered;
      if (!("return" in answer)) throw new Error(`${command}: ${JSON.stringify(answer)}`);
      answers.push(answer.return);
    }
    return answers.slice(1);
  } finally {
    lines.close();
    socket.destroy();
  }
}
