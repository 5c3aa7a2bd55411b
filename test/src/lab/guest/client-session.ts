/** Runs in a machine: a client that stays connected, and answers calls of its operations. Argument: the client's options. */
import { openClient } from "@libstorage/client";
import type { ClientOptions } from "@libstorage/client";
import { answerCalls } from "./answer-calls.js";

answerCalls(openClient(JSON.parse(process.argv[2] ?? "{}") as ClientOptions));
