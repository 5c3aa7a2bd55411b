/** Lines of text from a socket of QEMU's. */
import { createInterface } from "node:readline";
import type { Socket } from "node:net";

/** A connection that breaks, as it does when the machine is killed, just has no more lines. */
export function onLines(socket: Socket, callback: (line: string) => void): void {
  socket.on("error", () => {});
  const lines = createInterface({ input: socket });
  lines.on("error", () => {});
  lines.on("line", callback);
}
