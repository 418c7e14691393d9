<?php

class State
{
    public static int $count = 0;
}

function pieces(int $n): Generator
{
    for ($i = 0; $i < $n; $i++) {
        yield "piece $i\n";
    }
}

function endless(): Generator
{
    $piece = str_repeat('x', 64 << 10);
    while (true) {
        yield $piece;
    }
}

function pieceThenNothing(): Generator
{
    yield "piece\n";
    while (true) {
        sleep(1000);
    }
}

function breaks(): Generator
{
    yield 'half';
    throw new RuntimeException('broken on purpose');
}

// res->json makes objects of all lists.
function withLists($context, $body)
{
    return $context->res->text(json_encode(['body' => $body === [] ? new stdClass() : $body]), 200, ['content-type' => 'application/json']);
}

function request($context)
{
    $all = [];
    foreach (['method', 'scheme', 'host', 'port', 'path', 'queryString', 'query', 'url', 'headers', 'bodyText'] as $name) {
        $all[$name] = $context->req->$name;
    }
    return $context->res->json($all);
}

function logs($context)
{
    for ($i = 0; $i < (int) $context->req->query['n']; $i++) {
        $context->log("line $i");
    }
    return $context->res->text('logged');
}

function slept($context)
{
    $context->log('sleep start');
    usleep((int) $context->req->query['ms'] * 1000);
    $context->log('sleep end');
    return $context->res->text('slept');
}

function waits()
{
    while (true) {
        sleep(1000);
    }
}

function tmp($context)
{
    $file = sys_get_temp_dir() . '/written';
    file_put_contents($file, 'x');
    return $context->res->text($file);
}

function child($context)
{
    return $context->res->text(trim(shell_exec('sleep 1000 </dev/null >/dev/null 2>&1 & echo $!')));
}

function children($context)
{
    $quiet = [['file', '/dev/null', 'r'], ['file', '/dev/null', 'w'], ['file', '/dev/null', 'w']];
    $all = [];
    try {
        for ($i = 0; $i < (int) $context->req->query['n']; $i++) {
            $all[] = @proc_open(['sleep', '1000'], $quiet, $pipes) ?: throw new RuntimeException(error_get_last()['message']);
        }
    } finally {
        foreach ($all as $process) {
            proc_terminate($process, 9);
        }
        array_map('proc_close', $all);
    }
    return $context->res->text('started');
}

function used(): float
{
    $u = getrusage();
    return ($u['ru_utime.tv_sec'] + $u['ru_stime.tv_sec']) * 1e3 + ($u['ru_utime.tv_usec'] + $u['ru_stime.tv_usec']) / 1e3;
}

function burn($context)
{
    $end = used() + (int) $context->req->query['ms'];
    while (used() < $end);
    return $context->res->text('burned');
}

function fill($context)
{
    $file = sys_get_temp_dir() . '/filled';
    try {
        for ($i = 0; $i < (int) $context->req->query['mib']; $i++) {
            if (@file_put_contents($file, str_repeat('x', 1 << 20), FILE_APPEND) !== 1 << 20) {
                throw new RuntimeException(error_get_last()['message']);
            }
        }
    } finally {
        unlink($file);
    }
    return $context->res->text('written');
}

function garbage($context)
{
    $channel = @fopen('php://fd/3', 'w');
    if (!$channel || !@fwrite($channel, str_repeat("\xff", 64))) {
        return $context->res->text('no');
    }
    waits();
}

return function ($context) {
    $req = $context->req;
    $res = $context->res;
    switch ($req->path) {
        case '/hello':
            return $res->json(['hello' => 'world']);
        case '/echo':
            return $res->binary($req->bodyBinary, 200, ['content-type' => $req->headers['content-type'] ?? null]);
        case '/request':
            return request($context);
        case '/body':
            return withLists($context, $req->body);
        case '/bodyjson':
            return withLists($context, $req->bodyJson);
        case '/text':
            return $res->text('téxt', 201, ['X-Custom' => 'Value']);
        case '/binary':
            return $res->binary(implode('', array_map('chr', range(0, 255))));
        case '/json':
            return $res->json(['a' => 1, 'b' => 'é', 'c' => ['d' => true]]);
        case '/empty':
            return $res->empty();
        case '/redirect':
            return $res->redirect('https://example.org/a');
        case '/found':
            return $res->redirect('https://example.org/b', 302, ['x-why' => 'moved']);
        case '/send':
            return $res->send('sent', 202);
        case '/noreturn':
            $res->text('dropped');
            return;
        case '/record':
            return ['body' => 'own'];
        case '/status':
            return $res->text('status', (int) $req->query['n']);
        case '/type':
            return $res->text('typed', 200, ['Content-Type' => $req->bodyText]);
        case '/cookies':
            return $res->text('cookies', 200, ['set-cookie' => ['a=1', 'b=2']]);
        case '/crlf':
            return $res->text('crlf', 200, ['x-bad' => "a\r\nx-evil: 1"]);
        case '/throw':
            $context->log('before throw');
            throw new RuntimeException('thrown on purpose');
        case '/env':
            $value = getenv($req->query['name']);
            return $res->json(['value' => $value === false ? null : $value]);
        case '/environ':
            return $res->json(getenv());
        case '/log':
            $context->log('one', 'two');
            $context->error('three');
            return $res->text('logged');
        case '/logs':
            return logs($context);
        case '/longlog':
            $context->log(str_repeat('x', 9000));
            return $res->text('logged');
        case '/native':
            echo "native out\n";
            return $res->text('native');
        case '/sleep':
            return slept($context);
        case '/hang':
            $context->log('hanging');
            waits();
        case '/spin':
            $context->log('spinning');
            while (true);
        case '/exit':
            $context->log('exiting');
            pcntl_exec('/bin/sh', ['-c', 'exit 3']);
        case '/count':
            return $res->text((string) ++State::$count);
        case '/big':
            return $res->text(str_repeat('x', (int) $req->query['mib'] << 20));
        case '/stream':
            return $res->send(pieces((int) $req->query['n']));
        case '/endless':
            return $res->send(endless());
        case '/waits':
            return $res->send(pieceThenNothing());
        case '/alloc':
            $held = str_repeat('x', (int) $context->req->query['mib'] << 20);
            return $res->text($held === '' ? '' : 'allocated');
        case '/breaks':
            return $res->send(breaks());
        case '/cwd':
            return $res->text(getcwd());
        case '/tmp':
            return tmp($context);
        case '/child':
            return child($context);
        case '/children':
            return children($context);
        case '/burn':
            return burn($context);
        case '/fill':
            return fill($context);
        case '/garbage':
            return garbage($context);
    }
    return $res->text('not found', 404);
};
