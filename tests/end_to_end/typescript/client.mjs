// Reads one call a line from standard input and writes its outcome as one line:
// {"call": "create", "options": {"baseURL": …, "apiKey": …}, "body": {…}}

import Anthropic from '@anthropic-ai/sdk';
import { createInterface } from 'node:readline';

const calls = {
  async create(client, body) {
    const { data, request_id } = await client.messages.create(body).withResponse();
    return { message: data, requestId: request_id };
  },

  async stream(client, body) {
    let text = '';
    const stream = client.messages.stream(body).on('text', (piece) => (text += piece));
    return { message: await stream.finalMessage(), text };
  },

  async rawStream(client, body) {
    const types = [];
    for await (const event of await client.messages.create({ ...body, stream: true })) {
      types.push(event.type);
    }
    return { types };
  },

  async countTokens(client, body) {
    return client.messages.countTokens(body);
  },

  async models(client, body) {
    const ids = [];
    for await (const model of client.models.list(body)) ids.push(model.id);
    return { ids };
  },

  async model(client, body) {
    return client.models.retrieve(body.id);
  },
};

async function outcome({ call, options, body }) {
  try {
    const client = new Anthropic({ maxRetries: 0, timeout: 20_000, ...options });
    return { result: await calls[call](client, body) };
  } catch (error) {
    const { constructor, status, requestID, message, type, headers } = error;
    const classes = [];
    for (let each = constructor; each?.name; each = Object.getPrototypeOf(each)) {
      classes.push(each.name);
    }
    const advice = {
      retryAfter: headers?.get('retry-after') ?? null,
      shouldRetry: headers?.get('x-should-retry') ?? null,
    };
    return { error: { classes, status, requestId: requestID, message, type, ...advice } };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await outcome(JSON.parse(line)))}\n`);
}
