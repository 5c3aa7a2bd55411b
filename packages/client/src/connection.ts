/** Connections to one server without TLS; kept alive, bounded in time. */
import { Agent as HttpAgent } from "node:http";
import type { AgentOptions as HttpAgentOptions } from "node:http";
import * as net from "node:net";
import type { Duplex } from "node:stream";

/** As Node's agents call back. */
export type Done = (error: Error | null, stream: Duplex) => void;

/** Node gives an agent the target of a request among much else. */
export type Target = net.NetConnectOpts & { readonly host?: string; readonly servername?: string };

function connectTimeout(): Error {
  return Object.assign(new Error("connect timed out"), { code: "CONNECT_TIMEOUT" });
}

/** Calls back once: connected, failed, or out of time. */
export function whenReady(socket: net.Socket, event: string, timeoutMs: number, done: Done): void {
  const timer = setTimeout(() => socket.destroy(connectTimeout()), timeoutMs);
  const end = (): void => {
    clearTimeout(timer);
    socket.off("error", failed);
    socket.off(event, ready);
  };
  const failed = (error: Error): void => {
    end();
    done(error, socket);
  };
  const ready = (): void => {
    end();
    done(null, socket);
  };
  socket.once("error", failed);
  socket.once(event, ready);
}

export interface ConnectionOptions {
  readonly keepAlive: boolean;
  readonly connectTimeoutMs: number;
}

/** The agent of a Unix socket or of plain TCP. */
export function plainAgent({ keepAlive, connectTimeoutMs }: ConnectionOptions): HttpAgent {
  // Without a name of its own the agent would work one out for TLS, which there is none of here.
  const agent = new HttpAgent({ keepAlive, servername: "" } as HttpAgentOptions);
  agent.createConnection = (options, done) => {
    const socket = net.connect(options as Target);
    whenReady(socket, "connect", connectTimeoutMs, done as Done);
    return undefined as unknown as Duplex;
  };
  return agent;
}
