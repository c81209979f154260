// The node's proxy, from the contract alone: each call is repeated while the node is away, so that an algorithm survives its restart.
import { createHash } from "node:crypto";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import protobuf from "protobufjs";

const FRAME_BYTES = 1024 * 1024;
const PAUSE_MILLISECONDS = 200;

const PROTO = process.env.FOLKMOOT_PROTO ?? new URL("proto", import.meta.url).pathname;
const CONTRACT = "folkmoot/v1/proxy_service.proto";
const OPTIONS = { includeDirs: [PROTO], enums: String, longs: Number, defaults: true };

const { ProxyService } = grpc.loadPackageDefinition(protoLoader.loadSync(CONTRACT, OPTIONS)).folkmoot.v1;
const messages = new protobuf.Root();
messages.resolvePath = (_, path) => (path.startsWith("google/") ? path : join(PROTO, path));
const TaskInput = messages.loadSync(CONTRACT).lookupType("folkmoot.v1.TaskInput");

/** A task's input without attachments: its length, then what to call with what (see TaskInput in task.proto). */
export function encodeInput(name, args) {
  const head = TaskInput.encode({ function: name, argumentsJson: JSON.stringify(args) }).finish();
  const length = Buffer.alloc(4);
  length.writeUInt32BE(head.length);
  return Buffer.concat([length, head]);
}

/** Repeat a call until the node answers it; what it refuses is thrown. */
async function repeat(call) {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (error.code !== grpc.status.UNAVAILABLE) throw error;
      await pause(PAUSE_MILLISECONDS);
    }
  }
}

export class Proxy {
  constructor(address = process.env.FOLKMOOT_PROXY ?? "unix:/run/folkmoot/proxy.sock") {
    this.stub = new ProxyService(address, grpc.credentials.createInsecure(), {
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 1000,
    });
  }

  /** Wait until there is a run, and return what it is. */
  context() {
    return this.#unary("GetContext", { toolkit: `@grpc/grpc-js node/${process.versions.node}` });
  }

  /** Return a table as the bytes of an Arrow IPC stream. */
  async readTable(label, columns) {
    const frames = await repeat(() => collect(this.stub.ReadTable({ label, columns })));
    return Buffer.concat(frames.map((frame) => frame.data));
  }

  /** Create a subtask, once per key, and return its id. */
  async createSubtask(head, content) {
    const created = await this.#upload("CreateSubtask", [{ head }, ...frames(content)]);
    return created.taskId;
  }

  /** Return the results of a subtask's runs when all have ended: {organization, state, failure, content}. */
  async results(taskId) {
    const results = await repeat(() => collect(this.stub.WatchSubtask({ taskId, afterRevision: 0 })));
    const runs = [];
    for (const { run, data } of results) {
      if (run) runs.push({ ...run, content: [] });
      else runs.at(-1).content.push(data);
    }
    return runs.map((run) => ({ ...run, content: Buffer.concat(run.content) }));
  }

  /** Write the result; when this returns, it stands. */
  writeResult(value) {
    const content = Buffer.from(JSON.stringify(value));
    const digest = createHash("sha256").update(content).digest();
    return this.#upload("WriteResult", [{ head: { contentType: "application/json" } }, ...frames(content), { digest }]);
  }

  /** Say that the algorithm failed, and why. */
  writeFailure(message) {
    return this.#unary("WriteFailure", { message });
  }

  #unary(method, request) {
    return repeat(() => answer((done) => this.stub[method](request, done)));
  }

  #upload(method, requests) {
    return repeat(() =>
      answer((done) => {
        const call = this.stub[method](done);
        for (const request of requests) call.write(request);
        call.end();
      }),
    );
  }
}

function frames(content) {
  const found = [];
  for (let at = 0; at < content.length; at += FRAME_BYTES) found.push({ data: content.subarray(at, at + FRAME_BYTES) });
  return found;
}

function answer(call) {
  return new Promise((resolve, reject) => call((error, response) => (error ? reject(error) : resolve(response))));
}

async function collect(stream) {
  const messages = [];
  for await (const message of stream) messages.push(message);
  return messages;
}
