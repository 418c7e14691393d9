// A function in C: it takes a connection, reads the head of a request, answers and
// closes it. Build it with "gcc -static -o hello hello.c".
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
	static const char answer[] = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 12\r\n\r\nhello from C";
	for (;;) {
		char request[8192];
		size_t n = 0;
		int call = accept(3, NULL, NULL);
		if (call < 0)
			return 1;
		do {
			ssize_t more = read(call, request + n, sizeof request - 1 - n);
			if (more <= 0)
				break;
			request[n += more] = 0;
		} while (!strstr(request, "\r\n\r\n") && n < sizeof request - 1);
		printf("asked for %.*s\n", (int)strcspn(request, "\r\n"), request);
		fflush(stdout);
		write(call, answer, sizeof answer - 1);
		close(call);
	}
}
