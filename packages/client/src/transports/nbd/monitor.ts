/** One command for a storage daemon of this host, over its monitor. @see QEMU, docs/interop/qmp-spec.txt */
import { connect } from "node:net";
import { StorageError } from "@libstorage/model";

const ANSWER_MS = 10_000;
const MAX_CHARS = 1024 * 1024;

interface Message {
  readonly id?: number;
  readonly return?: unknown;
  readonly error?: { readonly desc: string };
}

/** @throws {StorageError} `unavailable` when nobody answers, `internal` with the daemon's words */
export function tellDaemon(socketPath: string, command: string, args: object): Promise<unknown> {
  const failed = (why: string): StorageError =>
    new StorageError("unavailable", `the storage daemon at ${socketPath} does not answer: ${why}`);
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    const end = (settle: () => void): void => {
      clearTimeout(timer);
      socket.destroy();
      settle();
    };
    const timer = setTimeout(() => end(() => reject(failed("it is silent"))), ANSWER_MS);
    let text = "";
    socket.setEncoding("utf8");
    socket.once("error", ({ message }) => end(() => reject(failed(message))));
    socket.once("close", () => end(() => reject(failed("it closed the connection"))));
    const send = (execute: string, id: number, given?: object): void => {
      socket.write(`${JSON.stringify({ execute, id, ...(given && { arguments: given }) })}\n`);
    };
    send("qmp_capabilities", 1);
    send(command, 2, args);
    const take = (line: string): void => {
      const { id, error, return: value } = JSON.parse(line) as Message;
      if (id !== 2) return;
      if (error === undefined) end(() => resolve(value));
      else {
        const words = `the storage daemon refused ${command}: ${error.desc}`;
        end(() => reject(new StorageError("internal", words, { command })));
      }
    };
    socket.on("data", (data) => {
      text += String(data);
      const lines = text.split("\n");
      text = lines.pop() ?? "";
      if (text.length > MAX_CHARS) end(() => reject(failed("it says too much")));
      for (const line of lines.map((one) => one.trim()).filter((one) => one !== "")) take(line);
    });
  });
}
