<?php
// Runs PHP functions for the process driver. The channel's protocol is
// described in package frame; what user code sees is the open runtimes' contract.
// Needs PHP 8.0 and no extensions beyond those that are always there.
//
// The master owns the channel and runs no user code. Workers are processes of
// this same file, which run one call at a time; their descriptor 3 leads to the
// master and carries the same frames.

namespace fnkit;

const CALL = 1, HEAD = 2, DATA = 3, WINDOW = 4, RESET = 5, LOG = 6, READY = 7, BIND = 8, BOUND = 9;
const END = 1;
const CREDIT = 256 << 10;
const PIECE = 64 << 10; // body bytes in one frame
const FRAME = 1 << 20;
const BODY_LIMIT = 20 << 20; // of a request
const STATUS_LIMIT = 1 << 30;
const LINE_LIMIT = 8000;
const WATCH = 0.1; // seconds between looks at workers whose socket a child of theirs keeps open
const FOREVER = 2000000; // seconds, about as many as a socket's timeout can be
const NATIVE = "Native logs detected. Use context.log() or context.error() for better experience.\n";

function frame(int $id, int $type, int $flags, string $payload = ''): string
{
    return pack('VVCC', strlen($payload) + 6, $id, $type, $flags) . $payload;
}

function head(array $head): string
{
    $json = json_encode($head, JSON_UNESCAPED_SLASHES | JSON_INVALID_UTF8_SUBSTITUTE);
    if (strlen($json) > 0xffff) {
        throw new \LengthException('response headers are too large');
    }
    return pack('v', strlen($json)) . $json;
}

/** Cuts a stream of bytes into frames. */
final class Frames
{
    private string $buffer = '';

    /** Yields [id, type, flags, the frame's bytes]; false for what is malformed. */
    public function cut(string $data): \Generator
    {
        $buffer = $this->buffer === '' ? $data : $this->buffer . $data;
        $at = 0;
        while (strlen($buffer) - $at >= 10) {
            $f = unpack('Vlength/Vid/Ctype/Cflags', $buffer, $at);
            if ($f['length'] < 6 || $f['length'] > FRAME) {
                yield false;
                return;
            }
            if (strlen($buffer) - $at < $f['length'] + 4) {
                break;
            }
            yield [$f['id'], $f['type'], $f['flags'], substr($buffer, $at, $f['length'] + 4)];
            $at += $f['length'] + 4;
        }
        $this->buffer = substr($buffer, $at);
    }
}

/** Opens descriptor 3. The copy that PHP makes of it is another. */
function descriptor3(bool $blocking)
{
    $stream = fopen('php://fd/3', 'r+b');
    stream_set_blocking($stream, $blocking);
    prepare($stream);
    return $stream;
}

function prepare($stream): void
{
    stream_set_timeout($stream, FOREVER);
    stream_set_chunk_size($stream, CREDIT);
    stream_set_write_buffer($stream, 0);
}

// ---- the master ----

/** A worker as the master sees it. */
final class Process
{
    public Frames $frames;
    public string $out = ''; // waits to be written; the calls' windows bound it
    public ?Call $call = null;
    public ?string $error = null; // of loading; '': loaded; null: not known yet
    public int $status = 1; // of a process that ended, as a shell tells it
    private string $how = '';

    public function __construct(public $handle, public $stream)
    {
        $this->frames = new Frames();
    }

    /** How it ended; '': it has not. */
    public function ended(): string
    {
        if ($this->how === '') {
            $s = proc_get_status($this->handle); // tells the exit status once
            if (!$s['running']) {
                $this->status = $s['signaled'] ? 128 + $s['termsig'] : $s['exitcode'];
                $this->how = 'its process ended with ' . ($s['signaled'] ? "signal $s[termsig]" : "exit status $s[exitcode]");
            }
        }
        return $this->how;
    }
}

final class Call
{
    public bool $started = false; // its body is complete
    public bool $answered = false; // its head is out
    public float $deadline = INF;

    public int $timeout; // milliseconds; 0: none
    public bool $logging;

    public function __construct(public int $id, public Process $process, array $head)
    {
        $this->timeout = $head['t'] ?? 0;
        $this->logging = ($head['l'] ?? 0) === 1;
    }
}

final class Master
{
    private $channel;
    private Frames $frames;
    private string $out = '';
    private array $processes = []; // by number of the stream
    private array $calls = []; // by id
    private array $dead = []; // processes that were killed and not seen to end
    private array $idle = []; // processes; the last used first
    private array $closed = []; // what later workers get for the master's descriptors
    private string $bind = '';
    private bool $ready = false;
    private bool $bound = false;

    public function run(): void
    {
        // The first worker gets ready while the host decides what to load.
        $this->idle[] = $this->spawn();
        $this->channel = descriptor3(false);
        foreach (@scandir('/dev/fd') ?: [] as $fd) {
            if ((int) $fd > 3) {
                $this->closed[(int) $fd] = ['file', '/dev/null', 'r'];
            }
        }
        $this->frames = new Frames();
        while (true) {
            $this->write();
            $this->wait();
        }
    }

    /** Ends everything. */
    private function quit(int $status): void
    {
        foreach ($this->processes as $p) {
            @proc_terminate($p->handle, 9);
        }
        exit($status);
    }

    private function wait(): void
    {
        $read = [$this->channel];
        $write = $this->out === '' ? [] : [$this->channel];
        foreach ($this->processes as $p) {
            if (strlen($this->out) < FRAME) {
                $read[] = $p->stream;
            }
            if ($p->out !== '') {
                $write[] = $p->stream;
            }
        }
        $none = null;
        $left = $this->timeLeft();
        $n = @stream_select($read, $write, $none, $left === null ? null : (int) $left, $left === null ? null : (int) (fmod($left, 1) * 1e6));
        foreach ($n ? $read : [] as $stream) {
            if ($stream === $this->channel) {
                $this->readChannel();
            } elseif (isset($this->processes[(int) $stream])) {
                $this->readProcess($this->processes[(int) $stream]);
            }
        }
        if ($left !== null) {
            $this->look();
        }
    }

    /** How long nothing but frames can happen, in seconds; null: for ever. */
    private function timeLeft(): ?float
    {
        if (!$this->calls && !$this->dead) {
            return null;
        }
        $left = WATCH;
        $now = hrtime(true) / 1e9;
        foreach ($this->calls as $call) {
            $left = min($left, $call->deadline - $now);
        }
        return max($left, 0);
    }

    /** Finds calls that took too long, and processes that ended unseen. */
    private function look(): void
    {
        $now = hrtime(true) / 1e9;
        foreach ($this->calls as $call) {
            if ($call->deadline <= $now) {
                $this->timeOut($call);
            }
        }
        static $last = 0;
        if ($now - $last < WATCH) {
            return;
        }
        $last = $now;
        $this->dead = array_filter($this->dead, fn ($p) => $p->ended() === '');
        foreach ($this->calls as $call) {
            $how = $call->process->ended();
            if ($how !== '') {
                $this->drain($call->process);
                $this->lost($call->process, $how);
            }
        }
    }

    private function write(): void
    {
        $this->out = $this->writeTo($this->channel, $this->out) ?? $this->quit(0);
        foreach ($this->processes as $p) {
            // What a process that ended did not take is of no use to anybody.
            $p->out = $this->writeTo($p->stream, $p->out) ?? '';
        }
    }

    /** Returns what is left; null: nobody reads any more. */
    private function writeTo($stream, string $data): ?string
    {
        if ($data === '') {
            return '';
        }
        $n = @fwrite($stream, $data);
        return $n === false ? null : ($n === strlen($data) ? '' : substr($data, $n));
    }

    // -- from the host --

    private function readChannel(): void
    {
        $data = fread($this->channel, CREDIT);
        if ($data === '' || $data === false) {
            if ($data === false || feof($this->channel)) {
                $this->quit(0);
            }
            return;
        }
        foreach ($this->frames->cut($data) as $f) {
            if (!$f) {
                $this->quit(1);
            }
            $this->fromHost(...$f);
        }
    }

    private function fromHost(int $id, int $type, int $flags, string $frame): void
    {
        if ($type === CALL) {
            $this->begin($id, $flags, $frame);
        } elseif ($type === BIND) {
            $this->bind = $frame;
            end($this->idle)->out .= $frame;
        } elseif (isset($this->calls[$id])) {
            $call = $this->calls[$id];
            if ($type === RESET) {
                $this->reset($call, $frame);
                return;
            }
            $call->process->out .= $frame;
            if ($type === DATA && $flags & END) {
                $this->start($call);
            }
        }
    }

    private function begin(int $id, int $flags, string $frame): void
    {
        $p = array_pop($this->idle) ?? $this->spawn();
        $length = unpack('v', $frame, 10)[1];
        $head = json_decode(substr($frame, 12, $length), true);
        $call = $this->calls[$id] = $p->call = new Call($id, $p, $head);
        $p->out .= $frame;
        if ($flags & END) {
            $this->start($call);
        }
    }

    private function start(Call $call): void
    {
        $call->started = true;
        if ($call->timeout > 0) {
            $call->deadline = hrtime(true) / 1e9 + $call->timeout / 1000;
        }
    }

    private function reset(Call $call, string $frame): void
    {
        if ($call->started) {
            $this->kill($call->process);
        } else {
            $call->process->out .= $frame;
            $this->release($call);
        }
        unset($this->calls[$call->id]);
        $this->out .= frame($call->id, RESET, END);
    }

    private function timeOut(Call $call): void
    {
        $this->drain($call->process);
        if (!isset($this->calls[$call->id]) || $call->answered) {
            return;
        }
        $this->kill($call->process);
        $this->fail($call, 'Execution timed out.', ['s' => 500, 't' => 1]);
    }

    // -- from the workers --

    private function readProcess(Process $p): bool
    {
        $data = @fread($p->stream, CREDIT);
        if ($data === '' || $data === false) {
            if ($data === false || feof($p->stream)) {
                $this->lost($p, $this->ending($p));
            }
            return false;
        }
        foreach ($p->frames->cut($data) as $f) {
            if (!$f || !$this->fromProcess($p, ...$f)) {
                $this->quit(1);
            }
        }
        return true;
    }

    /** Reads what a process has written so far, or a frame's worth of it. */
    private function drain(Process $p): void
    {
        for ($i = 0; $i < 8 && isset($this->processes[(int) $p->stream]) && $this->readProcess($p); $i++);
    }

    /** Passes a frame on; false: it is malformed. */
    private function fromProcess(Process $p, int $id, int $type, int $flags, string $frame): bool
    {
        if ($type === READY) {
            $this->toldReady($frame);
            return true;
        }
        if ($type === BOUND) {
            $p->error = json_decode(substr($frame, 10), true)['error'] ?? '';
            $this->toldBound($frame);
            return true;
        }
        if ($type !== HEAD && $type !== DATA && $type !== WINDOW && $type !== RESET && $type !== LOG) {
            return false;
        }
        $call = $p->call;
        if ($call === null || $call->id !== $id) {
            return true;
        }
        $this->out .= $frame;
        if ($type === HEAD) {
            $call->answered = true;
            $call->deadline = INF;
        }
        if ($flags & END) {
            unset($this->calls[$id]);
            $this->release($call);
        }
        return true;
    }

    /** The host hears of the first worker: that has no user code yet, and is what a call waits for. */
    private function toldReady(string $frame): void
    {
        if (!$this->ready) {
            $this->ready = true;
            $this->out .= $frame;
        }
    }

    private function toldBound(string $frame): void
    {
        if (!$this->bound) {
            $this->bound = true;
            $this->out .= $frame;
        }
    }

    private function release(Call $call): void
    {
        $call->process->call = null;
        $this->idle[] = $call->process;
    }

    /** A worker is gone: its call fails. */
    private function lost(Process $p, string $how): void
    {
        if (!isset($this->processes[(int) $p->stream])) {
            return;
        }
        if ($this->bind === '') {
            $this->quit(1); // this machine cannot run workers
        }
        if (!$this->bound) { // the code ends whoever loads it
            if ($p->status > 128 || $p->ended() === '') {
                fwrite(STDERR, "$how\n");
            }
            $this->quit($p->status);
        }
        $this->kill($p);
        $error = $p->error ?? "Failed to load module: $how.";
        $call = $p->call;
        if ($call === null) {
            return;
        }
        if ($error !== '') {
            $this->fail($call, $error, ['s' => 503]);
        } else {
            $this->fail($call, "The function did not answer: $how.", ['s' => 500]);
        }
    }

    private function fail(Call $call, string $why, array $head): void
    {
        if ($call->logging) {
            $this->out .= frame($call->id, LOG, 0, "\2$why\n");
        }
        $this->out .= $call->answered ? frame($call->id, RESET, END, $why) : frame($call->id, HEAD, END, head($head));
        unset($this->calls[$call->id]);
    }

    /** How a process that closed its socket ended; it may need a moment. */
    private function ending(Process $p): string
    {
        for ($i = 0; $i < 20 && $p->ended() === ''; $i++) {
            usleep(1000);
        }
        return $p->ended() ?: 'its process closed the channel';
    }

    private function spawn(): Process
    {
        $options = ['-d', 'display_errors=1', '-d', 'log_errors=0', '-d', 'memory_limit=8G'];
        $spec = [3 => ['socket']] + $this->closed;
        $handle = proc_open([PHP_BINARY, ...$options, __FILE__, 'worker'], $spec, $pipes);
        if (!$handle) {
            $this->quit(1);
        }
        $stream = $pipes[3];
        stream_set_blocking($stream, false);
        prepare($stream);
        $p = $this->processes[(int) $stream] = new Process($handle, $stream);
        $p->out = $this->bind;
        return $p;
    }

    private function kill(Process $p): void
    {
        if ($p->ended() === '') {
            proc_terminate($p->handle, 9);
            // Giving up the handle would wait for the end.
            $this->dead[] = $p;
        }
        unset($this->processes[(int) $p->stream]);
        $this->idle = array_values(array_filter($this->idle, fn ($i) => $i !== $p));
        fclose($p->stream);
    }
}

// ---- what user code sees ----

final class Context
{
    public Request $req;
    public Response $res;

    public function __construct(private Exchange $exchange)
    {
        $this->req = new Request($exchange);
        $this->res = new Response();
    }

    public function log(mixed ...$args): void
    {
        $this->exchange->log(1, implode(' ', array_map('fnkit\show', $args)));
    }

    public function error(mixed ...$args): void
    {
        $this->exchange->log(2, implode(' ', array_map('fnkit\show', $args)));
    }
}

/**
 * @property-read string $bodyText
 * @property-read string $bodyRaw
 * @property-read mixed $bodyJson
 * @property-read mixed $body
 */
final class Request
{
    public string $bodyBinary;
    public array $headers;
    public string $method;
    public string $scheme;
    public string $host;
    public int $port;
    public string $path;
    public string $queryString;
    public array $query = [];
    public string $url;

    public function __construct(Exchange $exchange)
    {
        $this->bodyBinary = $exchange->body;
        $this->method = $exchange->head['m'];
        $drop = fn ($name) => !str_starts_with($name, 'x-open-runtimes-');
        $this->headers = Worker::$enforced + array_filter($exchange->head['h'] ?? [], $drop, ARRAY_FILTER_USE_KEY);
        [$this->path, $this->queryString] = explode('?', $exchange->head['p'], 2) + [1 => ''];
        foreach (explode('&', $this->queryString) as $part) {
            [$key, $value] = explode('=', $part, 2) + [1 => ''];
            if ($key !== '') {
                $this->query[$key] = $value;
            }
        }
        $this->address($exchange->head['p']);
    }

    private function address(string $path): void
    {
        $this->scheme = ($this->headers['x-forwarded-proto'] ?? '') ?: 'http';
        $standard = $this->scheme === 'https' ? 443 : 80;
        preg_match('/^(.*?)(?::(\d+))?$/sD', $this->headers['host'] ?? '', $m);
        $this->host = $m[1];
        $this->port = (int) ($m[2] ?? $standard);
        $this->url = $this->scheme . '://' . $this->host . ($this->port === $standard ? '' : ':' . $this->port);
        $this->url .= $this->queryString === '' ? $this->path : $path;
    }

    public function __isset(string $name): bool
    {
        return in_array($name, ['body', 'bodyText', 'bodyRaw', 'bodyJson'], true);
    }

    public function __get(string $name): mixed
    {
        switch ($name) {
            case 'bodyText':
            case 'bodyRaw':
                return $this->bodyBinary;
            case 'bodyJson':
                return json_decode($this->bodyBinary, true, 512, JSON_THROW_ON_ERROR);
            case 'body':
                $json = str_starts_with(strtolower($this->headers['content-type'] ?? ''), 'application/json');
                return !$json ? $this->bodyBinary : ($this->bodyBinary === '' ? [] : $this->bodyJson);
        }
        trigger_error("Undefined property: Request::\$$name", E_USER_WARNING);
        return null;
    }
}

final class Response
{
    public function send(mixed $body, int $statusCode = 200, array $headers = []): array
    {
        $body = is_iterable($body) ? $body : (string) $body;
        return ['body' => $body, 'statusCode' => $statusCode, 'headers' => $headers];
    }

    public function text(string $body, int $statusCode = 200, array $headers = []): array
    {
        return $this->send($body, $statusCode, $headers);
    }

    public function binary(string $bytes, int $statusCode = 200, array $headers = []): array
    {
        return $this->send($bytes, $statusCode, $headers);
    }

    public function json(mixed $obj, int $statusCode = 200, array $headers = []): array
    {
        $headers = array_filter($headers, fn ($name) => strtolower((string) $name) !== 'content-type', ARRAY_FILTER_USE_KEY);
        $headers['content-type'] = 'application/json';
        return $this->send(json_encode($obj, JSON_FORCE_OBJECT | JSON_THROW_ON_ERROR), $statusCode, $headers);
    }

    public function empty(): array
    {
        return $this->send('', 204);
    }

    public function redirect(string $url, int $statusCode = 301, array $headers = []): array
    {
        return $this->send('', $statusCode, ['location' => $url] + $headers);
    }
}

function show(mixed $value): string
{
    if ($value instanceof \Throwable) {
        return errorText($value);
    }
    if (is_array($value) || is_object($value) && !$value instanceof \Stringable) {
        return json_encode($value, JSON_PARTIAL_OUTPUT_ON_ERROR | JSON_INVALID_UTF8_SUBSTITUTE | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES) ?: get_debug_type($value);
    }
    return is_resource($value) ? get_debug_type($value) : (string) $value;
}

function errorText(\Throwable $e): string
{
    $own = fn ($line) => str_contains($line, __FILE__) || str_ends_with($line, ' {main}');
    $trace = array_filter(explode("\n", $e->getTraceAsString()), fn ($line) => !$own($line));
    return implode("\n", [get_class($e) . ': ' . $e->getMessage(), ...$trace]) . "\nAt " . $e->getFile() . ':' . $e->getLine();
}

// ---- the worker ----

/** A call as its worker sees it. */
final class Exchange
{
    public string $body;
    public int $received = 0; // no credit was given for these bytes yet
    public int $credit = CREDIT;
    private bool $native = false; // something was printed
    private string $partial = '';

    public function __construct(private Worker $worker, public int $id, public array $head, string $body)
    {
        $this->body = $body;
    }

    public function log(int $stream, string $text): void
    {
        if (($this->head['l'] ?? 0) !== 1) {
            return;
        }
        if (strlen($text) > LINE_LIMIT) {
            for ($end = LINE_LIMIT; $end > LINE_LIMIT - 4 && (ord($text[$end]) & 0xc0) === 0x80; $end--);
            $text = substr($text, 0, $end) . sprintf('... Log truncated due to size limit (%d characters)', LINE_LIMIT);
        }
        $this->worker->send($this->id, LOG, 0, chr($stream) . $text . "\n");
    }

    public function printed(string $text): void
    {
        if (($this->head['l'] ?? 0) !== 1 || $text === '') {
            return;
        }
        if (!$this->native) {
            $this->native = true;
            $this->worker->send($this->id, LOG, 0, "\1" . NATIVE);
        }
        $lines = explode("\n", $this->partial . $text);
        // No more of a line is kept than is shown of it.
        $this->partial = substr(array_pop($lines), 0, LINE_LIMIT + 1);
        foreach ($lines as $line) {
            $this->log(1, $line);
        }
    }

    public function flush(): void
    {
        if ($this->partial !== '') {
            $this->log(1, $this->partial);
            $this->partial = '';
        }
    }

    public function end(int $type, string $payload = ''): void
    {
        $this->flush();
        $this->worker->send($this->id, $type, END, $payload);
    }

    public function fail(\Throwable $e): void
    {
        $this->log(2, errorText($e));
        $this->end(HEAD, head(['s' => 500]));
    }

    public function answer(mixed $result): void
    {
        if ($result === null) {
            $this->log(2, 'Return statement missing. return $context->res->empty() if no response is expected.');
            $this->end(HEAD, head(['s' => 500]));
            return;
        }
        if (!is_array($result)) {
            throw new \TypeError('the function must return a response, not ' . get_debug_type($result));
        }
        $status = (int) ($result['statusCode'] ?? 200);
        if (abs($status) > STATUS_LIMIT) {
            throw new \RangeException('invalid status code');
        }
        $head = head(['s' => $status, 'h' => fields($result['headers'] ?? [])]);
        $body = $result['body'] ?? '';
        if (!$body instanceof \Traversable) {
            $body = bytes($body);
            if (strlen($body) <= PIECE) {
                $this->end(HEAD, $head . $body);
                return;
            }
            $body = [$body];
        }
        $this->worker->send($this->id, HEAD, 0, $head);
        $this->stream($body);
    }

    private function stream(iterable $pieces): void
    {
        try {
            foreach ($pieces as $piece) {
                $this->push(bytes($piece));
            }
        } catch (\Throwable $e) {
            $this->log(2, errorText($e));
            $this->end(RESET, substr('stream failed: ' . $e->getMessage(), 0, 512));
            return;
        }
        $this->end(DATA);
    }

    private function push(string $piece): void
    {
        for ($at = 0; $at < strlen($piece); $at += $n) {
            while ($this->credit <= 0) {
                $this->worker->next();
            }
            $n = min(PIECE, $this->credit, strlen($piece) - $at);
            $this->credit -= $n;
            $this->worker->send($this->id, DATA, 0, substr($piece, $at, $n));
        }
    }
}

function bytes(mixed $body): string
{
    if ($body === null || is_scalar($body) || $body instanceof \Stringable) {
        return (string) $body;
    }
    throw new \TypeError('response body must be text or a generator of texts, not ' . get_debug_type($body));
}

function fields(array $headers): array
{
    $typed = false;
    $all = [];
    foreach ($headers as $name => $value) {
        $name = strtolower((string) $name);
        if (str_starts_with($name, 'x-open-runtimes-')) {
            continue;
        }
        foreach (is_array($value) ? $value : [$value] as $v) {
            if ($v === null) {
                continue;
            }
            $typed = $typed || $name === 'content-type';
            $all[] = [$name, $name === 'content-type' ? contentType((string) $v) : (string) $v];
        }
    }
    if (!$typed) {
        $all[] = ['content-type', 'text/plain; charset=utf-8'];
    }
    return $all;
}

function contentType(string $value): string
{
    $lower = strtolower($value);
    return str_starts_with($lower, 'multipart/') || str_contains($lower, 'charset=') ? $value : "$lower; charset=utf-8";
}

final class Worker
{
    public static array $enforced = []; // headers
    private $channel;
    private Frames $frames;
    private \Iterator $incoming;
    private ?Exchange $current = null; // whose code runs, or is to
    private string $entrypoint;
    private string $root;
    private bool $loading = false;
    private int $pid; // processes that user code forks have no business on the channel
    private $main;

    public function run(): void
    {
        $this->pid = getmypid();
        $this->channel = descriptor3(true);
        $this->frames = new Frames();
        $this->incoming = $this->frames->cut('');
        register_shutdown_function(fn () => $this->ended());
        $this->send(0, READY, 0, json_encode(['protocol' => 1, 'version' => PHP_VERSION]));
        while (true) {
            $this->next();
        }
    }

    public function send(int $id, int $type, int $flags, string $payload): void
    {
        if (getmypid() !== $this->pid) {
            return;
        }
        $data = frame($id, $type, $flags, $payload);
        while ($data !== '') {
            $n = @fwrite($this->channel, $data);
            if (!$n && !stream_get_meta_data($this->channel)['timed_out']) {
                die();
            }
            $data = $n === strlen($data) ? '' : substr($data, (int) $n);
        }
    }

    /** Handles one frame. */
    public function next(): void
    {
        while (!$this->incoming->valid()) {
            $data = @fread($this->channel, CREDIT);
            if ($data === '' || $data === false) {
                if ($data === false || feof($this->channel)) {
                    die();
                }
                continue;
            }
            $this->incoming = $this->frames->cut($data);
        }
        $f = $this->incoming->current();
        $this->incoming->next();
        [$id, $type, $flags, $frame] = $f;
        $e = $this->current;
        if ($type === BIND) {
            $this->bind(json_decode(substr($frame, 10), true));
        } elseif ($type === CALL) {
            $length = unpack('v', $frame, 10)[1];
            $head = json_decode(substr($frame, 12, $length), true, 512, JSON_INVALID_UTF8_SUBSTITUTE);
            $this->current = new Exchange($this, $id, $head, substr($frame, 12 + $length));
            $flags & END && $this->invoke();
        } elseif ($e === null || $e->id !== $id) {
            return; // late
        } elseif ($type === WINDOW) {
            $e->credit += unpack('V', $frame, 10)[1];
        } elseif ($type === RESET) {
            $this->current = null;
        } elseif ($type === DATA) {
            $this->receive($e, substr($frame, 10), $flags);
        }
    }

    private function receive(Exchange $e, string $data, int $flags): void
    {
        if (strlen($e->body) + strlen($data) > BODY_LIMIT) {
            $this->current = null;
            $this->send($e->id, RESET, END, 'the request body is too large');
            return;
        }
        $e->body .= $data;
        $e->received += strlen($data);
        if ($flags & END) {
            $this->invoke();
        } elseif ($e->received >= CREDIT / 2) {
            $this->send($e->id, WINDOW, 0, pack('V', $e->received));
            $e->received = 0;
        }
    }

    private function invoke(): void
    {
        $e = $this->current;
        try {
            $result = ($this->main)(new Context($e));
            $e->answer($result);
        } catch (\Throwable $t) {
            $e->fail($t);
        }
        if (getmypid() !== $this->pid) {
            die();
        }
        $this->current = null;
    }

    private function bind(array $b): void
    {
        [$this->root, $this->entrypoint] = [$b['root'], $b['entrypoint']];
        foreach (array_keys(getenv()) as $name) {
            putenv($name);
            unset($_SERVER[$name]);
        }
        foreach ($b['env'] as $name => $value) {
            putenv("$name=$value");
            $_SERVER[$name] = $value;
        }
        $_ENV = $b['env'];
        foreach (json_decode($b['env']['OPEN_RUNTIMES_HEADERS'] ?? '', true) ?: [] as $name => $value) {
            self::$enforced[strtolower($name)] = is_string($value) ? $value : json_encode($value);
        }
        $file = "$this->root/$this->entrypoint";
        $_SERVER['argv'] = $GLOBALS['argv'] = [$file];
        $_SERVER['argc'] = $GLOBALS['argc'] = 1;
        $_SERVER['PHP_SELF'] = $_SERVER['SCRIPT_NAME'] = $_SERVER['SCRIPT_FILENAME'] = $_SERVER['PATH_TRANSLATED'] = $file;
        set_include_path('.' . PATH_SEPARATOR . $this->root);
        $this->loading = true;
        $error = chdir($this->root) ? $this->load($file) : "cannot change to $this->root";
        $this->bound($error);
        if ($error !== '') {
            die(); // a fresh process tries again
        }
        ob_start(fn ($text) => $this->captured($text), 1, 0);
    }

    private function bound(string $error): void
    {
        $this->loading = false;
        $this->send(0, BOUND, 0, json_encode(['error' => $error], JSON_INVALID_UTF8_SUBSTITUTE));
    }

    /** Returns why the function cannot be loaded. */
    private function load(string $file): string
    {
        $inside = str_starts_with((string) realpath($file), rtrim(realpath($this->root), '/') . '/');
        if (!$inside || !is_file($file)) {
            return "Failed to load entrypoint, file $this->entrypoint does not exist.";
        }
        try {
            $this->main = (static fn () => require func_get_arg(0))($file);
        } catch (\ParseError $e) {
            return "Syntax error in $this->entrypoint: " . $e->getMessage() . ' at ' . $e->getFile() . ':' . $e->getLine();
        } catch (\Throwable $e) {
            return ($e instanceof \TypeError ? '' : 'Failed to load module: ') . $e->getMessage() . "\nAt " . $e->getFile() . ':' . $e->getLine();
        }
        return is_callable($this->main) ? '' : "Function signature invalid. Did you forget to export a 'main' function?";
    }

    private function captured(string $text): string
    {
        $this->current?->printed($text);
        return '';
    }

    /** Says why PHP gives up this process. */
    private function ended(): void
    {
        ini_set('memory_limit', '-1');
        $e = error_get_last();
        $fatal = $e !== null && $e['type'] & (E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR | E_RECOVERABLE_ERROR);
        $why = $fatal ? "$e[message]\nAt $e[file]:$e[line]" : '';
        if ($this->loading) {
            $why === '' || $this->bound("Failed to load module: $why"); // else the code has asked for it
        } elseif ($this->current !== null) {
            $this->current->flush();
            $why === '' || $this->current->log(2, $why);
        }
    }
}

if (($argv[1] ?? '') === 'worker') {
    (new Worker())->run();
} else {
    (new Master())->run();
}
