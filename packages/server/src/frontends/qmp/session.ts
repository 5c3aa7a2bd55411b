/** One conversation in QMP: greeting, capabilities, commands in their order, events between them. */
import type { Readable, Writable } from "node:stream";
import type { CallContext } from "@libstorage/model";
import type { Logger } from "../../core/log.js";
import type { Commands } from "./commands.js";
import { QmpFailure, isOurFault, replyOfFailure } from "./failure.js";
import { JsonValues } from "./json-values.js";
import type { JsonLimits } from "./json-values.js";
import { checkArguments } from "./qapi.js";
import type { Arguments } from "./qapi.js";
import { Capabilities } from "./types.js";

export interface QmpEvent {
  readonly event: string;
  readonly data: object;
}

export interface SessionParts {
  readonly commands: Commands;
  readonly version: unknown;
  readonly limits: JsonLimits;
  /** Tells of events from now on; answers how to stop. */
  subscribe(listener: (event: QmpEvent) => void): () => void;
  readonly log: Logger;
}

/** How much may wait for a client that does not read; with more it is cut off. */
const MAX_WAITING_BYTES = 1024 * 1024;

interface Request {
  readonly execute: string;
  readonly args: Arguments;
}

function isObject(value: unknown): value is Arguments {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @throws {QmpFailure} in QEMU's words */
function requestOf(message: Arguments): Request {
  for (const [name, value] of Object.entries(message)) {
    if (name === "execute") {
      if (typeof value !== "string")
        throw new QmpFailure("QMP input member 'execute' must be a string");
    } else if (name === "arguments") {
      if (!isObject(value)) throw new QmpFailure("QMP input member 'arguments' must be an object");
    } else if (name !== "id") throw new QmpFailure(`QMP input member '${name}' is unexpected`);
  }
  const { execute, arguments: args = {} } = message as {
    execute?: string;
    arguments?: Arguments;
  };
  if (execute === undefined) throw new QmpFailure("QMP input lacks member 'execute'");
  return { execute, args };
}

export class QmpSession {
  readonly #parts: SessionParts;
  readonly #output: Writable;
  readonly #context: CallContext;
  #isNegotiated = false;
  #unsubscribe: () => void = () => {};

  constructor(output: Writable, context: CallContext, parts: SessionParts) {
    this.#output = output;
    this.#context = context;
    this.#parts = parts;
  }

  /** Talks until the input ends or either side is gone; the output is the caller's to end. */
  async run(input: Readable): Promise<void> {
    const { version, limits } = this.#parts;
    const values = new JsonValues(limits);
    try {
      this.#write({ QMP: { version, capabilities: [] } });
      // A piece is done with before the next is read, so that nobody can pile up commands. At its end the stream is
      // left alone: a socket still has to bring the answers.
      for await (const piece of input.iterator({ destroyOnReturn: false }))
        for (const item of values.read(piece as Uint8Array)) {
          if (this.#output.destroyed) return;
          if ("problem" in item) this.#fail(new QmpFailure(item.problem), {});
          else await this.#handle(item.value);
          await this.#drained();
        }
      const cut = values.end();
      if (cut !== undefined) this.#fail(new QmpFailure(cut), {});
    } catch (error) {
      // A client that goes away in the middle is no news.
      if (isOurFault(error) && !this.#output.destroyed && !input.destroyed)
        this.#parts.log.error({ error }, "a QMP session failed");
    } finally {
      this.#unsubscribe();
    }
  }

  async #handle(value: unknown): Promise<void> {
    if (!isObject(value)) {
      this.#fail(new QmpFailure("QMP input must be a JSON object"), {});
      return;
    }
    const id = Object.hasOwn(value, "id") ? { id: value["id"] } : {};
    try {
      const result = await this.#execute(requestOf(value));
      this.#write({ return: result ?? {}, ...id });
    } catch (error) {
      this.#fail(error, id);
    }
  }

  async #execute({ execute, args }: Request): Promise<unknown> {
    const { commands } = this.#parts;
    if (!this.#isNegotiated) return this.#negotiate(execute, args);
    if (execute === "qmp_capabilities")
      throw new QmpFailure(
        "Capabilities negotiation is already complete, command ignored",
        "CommandNotFound",
      );
    const command = Object.hasOwn(commands, execute) ? commands[execute] : undefined;
    if (command === undefined)
      throw new QmpFailure(`The command ${execute} has not been found`, "CommandNotFound");
    checkArguments(command.args, args);
    return command.run(args, this.#context);
  }

  #negotiate(execute: string, args: Arguments): undefined {
    if (execute !== "qmp_capabilities")
      throw new QmpFailure(
        "Expecting capabilities negotiation with 'qmp_capabilities'",
        "CommandNotFound",
      );
    checkArguments(Capabilities, args);
    this.#isNegotiated = true;
    this.#unsubscribe = this.#parts.subscribe((event) => this.#tell(event));
    return undefined;
  }

  #tell({ event, data }: QmpEvent): void {
    const now = Date.now();
    const timestamp = { seconds: Math.floor(now / 1000), microseconds: (now % 1000) * 1000 };
    this.#write({ timestamp, event, data });
    if (this.#output.writableLength > MAX_WAITING_BYTES) this.#output.destroy();
  }

  #fail(error: unknown, id: object): void {
    if (isOurFault(error)) this.#parts.log.error({ error }, "a QMP command failed");
    this.#write({ error: replyOfFailure(error), ...id });
  }

  #write(message: object): void {
    if (!this.#output.destroyed) this.#output.write(`${JSON.stringify(message)}\r\n`);
  }

  /** Who does not read what he is told is not read from either. */
  async #drained(): Promise<void> {
    const output = this.#output;
    if (!output.writableNeedDrain || output.destroyed) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        output.off("drain", done);
        output.off("close", done);
        resolve();
      };
      output.once("drain", done);
      output.once("close", done);
    });
  }
}
