/** The TCP connections that servers of this process accept, and what the kernel says of them. */
import { execFileSync } from "node:child_process";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import type { Socket } from "node:net";

/** Whether small packets go out at once. Node does not tell. @see tcp(7), TCP_NODELAY */
export function hasNoDelay(socket: Socket): boolean {
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  const script =
    'open(my $s, "+<&=", 3) or die $!; print unpack("i", getsockopt($s, IPPROTO_TCP, TCP_NODELAY))';
  const said = execFileSync("perl", ["-MSocket=IPPROTO_TCP,TCP_NODELAY", "-e", script], {
    stdio: ["ignore", "pipe", "inherit", fd],
    encoding: "utf8",
  });
  return said !== "0";
}

/** @param act gets the connections as they come, until it ends */
export async function accepted(act: (sockets: readonly Socket[]) => Promise<void>): Promise<void> {
  const sockets: Socket[] = [];
  const listener = (message: unknown): void => {
    const { socket } = message as { readonly socket: Socket };
    // Those of Unix sockets have no family.
    if (socket.remoteFamily !== undefined) sockets.push(socket);
  };
  subscribe("net.server.socket", listener);
  try {
    await act(sockets);
  } finally {
    unsubscribe("net.server.socket", listener);
  }
}
